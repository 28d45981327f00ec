"""Stored responses about an aggregate are erased with it, and their requests never executed again."""

import json
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
import httpx2 as httpx
import pytest
from fastapi import Depends, FastAPI
from relaybox.db import Database
from relaybox.events import erase
from relaybox.http import IdempotencyMiddleware, UnitOfWork, unit_of_work
from relaybox.settings import IdempotencySettings
from starlette.responses import Response

from tests.fixtures.shop import insert_order

NODE, PARENT = uuid4(), uuid4()
Unit = UnitOfWork[str]


async def sender() -> str:
    return "ann"


@pytest.fixture
async def superuser(superuser: asyncpg.Connection) -> asyncpg.Connection:
    await superuser.execute("CREATE TABLE orders (id UUID PRIMARY KEY, owner TEXT, article TEXT)")
    await superuser.execute("GRANT ALL ON orders TO PUBLIC")
    return superuser


@pytest.fixture
def nodes(database: Database) -> FastAPI:
    settings = IdempotencySettings(body_bytes_max=4_000)
    app = FastAPI()
    app.add_middleware(IdempotencyMiddleware, settings=settings)
    depends = Depends(unit_of_work(database, sender, settings=settings))

    @app.post("/nodes", status_code=201)
    async def create(size: int, unit: Annotated[Unit, depends]) -> Response:
        await insert_order(unit, "node")
        unit.about(NODE)
        unit.about(str(PARENT), NODE)
        return Response(b"s" * size, 201, {"Location": f"/nodes/{NODE}"})

    @app.delete("/nodes", status_code=204)
    async def purge(unit: Annotated[Unit, depends]) -> None:
        await erase(unit.db, "NODE", [NODE], actor=unit.principal, reason="purged")
        unit.about(NODE)

    @app.post("/many")
    async def many(unit: Annotated[Unit, depends]) -> None:
        unit.about(*(UUID(int=number) for number in range(101)))

    _ = create, purge, many
    return app


@pytest.fixture
async def ann(nodes: FastAPI) -> Any:
    transport = httpx.ASGITransport(nodes, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://nodes") as client:
        yield client


async def create(client: httpx.AsyncClient, key: str | None = "k", size: int = 10) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post("/nodes", params={"size": size}, headers=headers)


async def test_claim_has_the_aggregates_of_its_response(
    superuser: asyncpg.Connection, ann: httpx.AsyncClient
) -> None:
    assert (await create(ann)).status_code == 201
    result = json.loads(await superuser.fetchval("SELECT result FROM idempotency_cache"))
    assert result["targets"] == [str(NODE), str(PARENT)]
    assert (await create(ann)).headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("size", [0, 10, 3_000, 5_000], ids=["empty", "short", "apart", "too large"])
async def test_erased_response_is_not_replayed_nor_its_request_executed(
    superuser: asyncpg.Connection, ann: httpx.AsyncClient, size: int
) -> None:
    first = await create(ann, size=size)
    purged = await ann.delete("/nodes", headers={"Idempotency-Key": "p"})
    again = await create(ann, size=size)

    assert (first.status_code, purged.status_code, again.status_code) == (201, 204, 410)
    assert again.json()["error_code"] == "RESPONSE_NOT_KEPT"
    assert "has been erased" in again.json()["message"]
    assert (again.json()["original_status"], again.json()["location"]) == (201, None)
    assert "location" not in again.headers
    assert await superuser.fetchval("SELECT count(*) FROM orders") == 1
    assert await superuser.fetchval("SELECT count(*) FROM idempotency_bodies") == 0
    left = await superuser.fetchval("SELECT string_agg(result::text, '') FROM idempotency_cache")
    assert "sss" not in left


async def test_response_of_the_erasing_request_is_replayed(ann: httpx.AsyncClient) -> None:
    """It is stored after the erasure, in the same transaction."""
    first, again = [await ann.delete("/nodes", headers={"Idempotency-Key": "p"}) for _ in range(2)]
    assert (first.status_code, again.status_code) == (204, 204)
    assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.guarantee("G62")
async def test_another_request_under_an_erased_responses_key_is_refused(
    superuser: asyncpg.Connection, ann: httpx.AsyncClient
) -> None:
    await create(ann)
    await ann.delete("/nodes")
    assert (await create(ann, size=11)).json()["error_code"] == "IDEMPOTENCY_KEY_REUSED"


async def test_about_without_a_key_has_no_effect(
    superuser: asyncpg.Connection, ann: httpx.AsyncClient
) -> None:
    assert (await create(ann, None)).status_code == 201
    assert await superuser.fetchval("SELECT count(*) FROM idempotency_cache") == 0


async def test_response_is_about_at_most_100_aggregates(
    superuser: asyncpg.Connection, ann: httpx.AsyncClient
) -> None:
    assert (await ann.post("/many", headers={"Idempotency-Key": "m"})).status_code == 500
    assert await superuser.fetchval("SELECT count(*) FROM idempotency_cache") == 0
