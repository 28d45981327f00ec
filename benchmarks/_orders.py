"""Application factories for uvicorn for ``idempotency.py``: an endpoint with one INSERT and one event.

* ``create_orders``: in a unit of work of Relaybox.
* ``create_orders_peer``: in a session of SQLAlchemy that the endpoint commits, behind the middleware
  ``asgi-idempotency-header`` with Redis, as the documentation of that package shows. Token check, rows and
  connection pool are the same.
"""

import os
import sys
from typing import Annotated, Any, Final
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI
from pydantic import BaseModel, Field
from relaybox.db import Database
from relaybox.http import (
    IdempotencyMiddleware,
    Principal,
    SharedSecretVerifier,
    UnitOfWork,
    bearer,
    unit_of_work,
)
from relaybox.outbox import save_to_outbox
from relaybox.settings import JwtSettings, PostgresSettings, load_settings
from relaybox.telemetry import configure_logging
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ("ORDERS", "PEER_PACKAGES", "PEER_REDIS", "create_orders", "create_orders_peer")

ORDERS: Final = "/orders"
#: Names of environment variables: the directory of the middleware's packages, and the port of its Redis.
PEER_PACKAGES: Final = "BENCH_PEER_PACKAGES"
PEER_REDIS: Final = "BENCH_PEER_REDIS"


class Base(DeclarativeBase):
    """Base class of the SQLAlchemy models of both applications."""


class Order(Base):
    """Model of the table ``bench_orders``."""

    __tablename__ = "bench_orders"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    customer: Mapped[str]
    item: Mapped[str]
    quantity: Mapped[int]


class NewOrder(BaseModel):
    """The body of a request that places an order."""

    item: Annotated[str, Field(min_length=1, max_length=200)]
    quantity: Annotated[int, Field(ge=1, le=1_000)]


class OrderPlaced(BaseModel):
    """The body of the response: the order that was placed."""

    order_id: UUID
    item: str
    quantity: int
    status: str = "PLACED"


def create_orders() -> FastAPI:
    """Create the application whose endpoint uses a unit of work."""
    database, authenticated = _parts("orders")
    unit = unit_of_work(database, authenticated)
    app = FastAPI()
    app.add_middleware(IdempotencyMiddleware)

    @app.post(ORDERS, status_code=201)
    async def place(body: NewOrder, work: Annotated[UnitOfWork[Principal], Depends(unit)]) -> OrderPlaced:
        return await _place(body, work.principal, work.db)

    _ = place
    return app


def create_orders_peer() -> FastAPI:
    """Create the application whose endpoint is behind ``asgi-idempotency-header``."""
    database, authenticated = _parts("orders-peer")
    app = FastAPI()
    _add_peer(app)

    @app.post(ORDERS, status_code=201)
    async def place(body: NewOrder, caller: Annotated[Principal, Depends(authenticated)]) -> OrderPlaced:
        async with database.sessions() as db:
            placed = await _place(body, caller, db)
            await db.commit()
        return placed

    _ = place
    return app


def _parts(name: str) -> tuple[Database, Any]:
    configure_logging(name, "WARNING")
    database = Database(load_settings(PostgresSettings), application_name=name)
    return database, bearer(SharedSecretVerifier(load_settings(JwtSettings)))


def _add_peer(app: FastAPI) -> None:
    """Add the middleware, imported from another environment; FastAPI and Starlette are the product's."""
    packages = os.environ[PEER_PACKAGES]
    sys.path.insert(0, packages)
    peer: Any = __import__("idempotency_header_middleware")
    backends: Any = __import__("idempotency_header_middleware.backends", fromlist=["RedisBackend"])
    redis: Any = __import__("redis.asyncio", fromlist=["Redis"])
    sys.path.remove(packages)
    client = redis.Redis(host="127.0.0.1", port=int(os.environ[PEER_REDIS]))
    app.add_middleware(peer.IdempotencyHeaderMiddleware, backend=backends.RedisBackend(redis=client))


async def _place(body: NewOrder, caller: Principal, db: AsyncSession) -> OrderPlaced:
    order = Order(id=uuid4(), customer=caller.subject, item=body.item, quantity=body.quantity)
    db.add(order)
    await db.flush()
    placed = OrderPlaced(order_id=order.id, item=body.item, quantity=body.quantity)
    await save_to_outbox("domain-events", str(order.id), _event(placed, caller), db)
    return placed


def _event(placed: OrderPlaced, caller: Principal) -> dict[str, Any]:
    return {
        "event_id": uuid4(),
        "event_type": "Shop.Order.Placed",
        "event_version": 1,
        "aggregate_type": "ORDER",
        "aggregate_id": str(placed.order_id),
        "correlation_id": uuid4(),
        "causation_id": None,
        "timestamp": "2026-01-01T00:00:00.000000Z",
        "version": 1,
        "payload": placed.model_dump(mode="json"),
        "metadata": {"source_service": "orders", "user_id": caller.subject},
    }
