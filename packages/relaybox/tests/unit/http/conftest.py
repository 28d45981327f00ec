"""A small application made by ``create_app``, called without a network."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

import httpx2 as httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, Field, SecretStr
from relaybox.commands import CommandRefused, PayloadInvalid
from relaybox.db import DatabaseBusy, DatabaseUnavailable
from relaybox.errors import Detail, RelayboxError
from relaybox.http import (
    AUTH_ERRORS,
    BODY_ERRORS,
    ERROR_TABLE,
    ErrorResponse,
    Principal,
    SharedSecretVerifier,
    bearer,
    create_app,
    error_responses,
    json_body,
    make_token,
    read_json,
    read_model,
)
from relaybox.outbox import EventIncomplete, MessageTooLarge, TopicUndeclared
from relaybox.settings import JwtSettings
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

JWT = JwtSettings(secret=SecretStr("a secret of 32 bytes at the least"))
LIMIT_BYTES = 4_096


class Line(BaseModel):
    """One line of an order."""

    article: str
    count: int = Field(ge=1)


class Order(BaseModel):
    """A body with a nested model."""

    lines: list[Line]


class BoxedLine(BaseModel):
    """One line of a box; no route declares this model to the framework."""

    article: str
    count: int = Field(ge=1)


class Box(BaseModel):
    """A body that its route parses itself."""

    lines: list[BoxedLine]


class Taken(RelayboxError):
    """Raised with the id of another object."""

    error_code = "TAKEN"

    def __init__(self, by: str) -> None:
        super().__init__("another client has the box")
        self.by = by


class Tired(RelayboxError):
    """Raised with the seconds after which to retry."""

    error_code = "TIRED"

    def __init__(self, rest_s: int) -> None:
        super().__init__("Ask again later")
        self.rest_s = rest_s


class Unfit(CommandRefused):
    """Raised for a field that is invalid in the current stage."""

    details = (Detail(field="payload.content.title", message="Field required"),)


class Half(Response):
    """Starts a response and then raises."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("too late for a status")


class Unlisted(RelayboxError):
    """Raised without an entry in the table of errors."""

    error_code = "UNLISTED"


TABLE = {
    **ERROR_TABLE,
    Taken: ErrorResponse(status=409, fields=lambda error: {"taken_by": error.by}),
    Tired: ErrorResponse(
        status=429,
        headers={"Retry-After": "1"},
        headers_of=lambda error: {"Retry-After": str(error.rest_s)},
    ),
}
RAISED: dict[str, Callable[[], Exception]] = {
    "taken": lambda: Taken("ann"),
    "tired": lambda: Tired(7),
    "away": lambda: DatabaseUnavailable("PostgreSQL is unreachable on secret-host"),
    "busy": lambda: DatabaseBusy("PostgreSQL is busy"),
    "message-too-large": lambda: MessageTooLarge("the event is too large"),
    "undeclared": lambda: TopicUndeclared("a private topic"),
    "incomplete": lambda: EventIncomplete("a private detail"),
    "unlisted": lambda: Unlisted("a private detail"),
    "unexpected": lambda: ValueError("a private detail"),
    "teapot": lambda: HTTPException(418, "short and stout", {"X-Pot": "tea"}),
    "refused": lambda: CommandRefused("the shop is closed"),
    "unfit": lambda: Unfit("the title is missing"),
    "bad-payload": lambda: PayloadInvalid("Buy", [Detail(field="payload.lines", message="Field required")]),
    "too-large": lambda: HTTPException(413),
}


def routes() -> APIRouter:
    router = APIRouter(prefix="/shop/{shop}")
    authenticate = bearer(SharedSecretVerifier(JWT))

    @router.post(
        "/orders/{order_id}",
        openapi_extra=json_body(Box),
        responses=error_responses(*AUTH_ERRORS, *BODY_ERRORS),
    )
    async def take(
        order_id: UUID,
        request: Request,
        sender: Annotated[Principal, Depends(authenticate)],
    ) -> dict[str, Any]:
        order = await read_model(request, Box, LIMIT_BYTES)
        return {"sender": sender.subject, "lines": len(order.lines), "order_id": str(order_id)}

    @router.post("/anything")
    async def anything(request: Request) -> Any:
        return await read_json(request)

    @router.post("/large")
    async def large(request: Request) -> Any:
        return await read_json(request, 2 * LIMIT_BYTES)

    @router.post("/framework")
    async def framework(order: Order) -> int:
        return len(order.lines)

    @router.post("/raw")
    async def raw(request: Request) -> int:
        return len(await request.body())

    @router.get("/raise/{name}")
    async def fail(name: str) -> None:
        error = RAISED[name]()
        raise error

    @router.get("/half")
    async def half() -> Response:
        return Half()

    _ = take, anything, large, framework, raw, fail, half
    return router


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
    yield


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Configure logging: unconfigured, structlog formats tracebacks for terminals, which takes seconds."""
    with capture_logs():
        yield


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def api(registry: CollectorRegistry) -> FastAPI:
    app = create_app(
        title="Shop <b>",
        version="1.2.3",
        lifespan=lifespan,
        checks={},
        registry=registry,
        cors_origins=["https://shop.example"],
        cors_headers=["X-Basket"],
        error_table=TABLE,
        body_bytes_max=LIMIT_BYTES,
    )
    outer = APIRouter()
    outer.include_router(routes())
    app.include_router(outer, prefix="/api")
    return app


@pytest.fixture
async def http(api: FastAPI) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
        yield client


@pytest.fixture
def token() -> dict[str, str]:
    return {"Authorization": f"Bearer {make_token(JWT, 'ann')}"}


Post = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
def post(http: httpx.AsyncClient) -> Post:
    """Post bytes as JSON to a route below ``/api/shop/s``."""

    async def send(path: str, content: Any, headers: dict[str, str] | None = None) -> httpx.Response:
        given = {"Content-Type": "application/json"} | (headers or {})
        return await http.post(f"/api/shop/s{path}", content=content, headers=given)

    return send
