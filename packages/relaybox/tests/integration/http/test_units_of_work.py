"""Mistakes and habits of endpoints, dependencies and applications with units of work."""

from collections.abc import AsyncGenerator
from typing import Annotated, Any

import httpx2 as httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from pydantic import SecretStr
from relaybox.db import Database
from relaybox.http import (
    Backbone,
    IdempotencyMiddleware,
    SharedSecretVerifier,
    UnitOfWork,
    has_stored_response,
    unit_of_work,
)
from relaybox.settings import IdempotencySettings
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from tests.fixtures.shop import Shop, insert_order

KEY = {"Idempotency-Key": "k"}


async def order(
    client: httpx.AsyncClient, then: str, headers: dict[str, str] | None = None
) -> httpx.Response:
    return await client.post("/orders", json={"article": "tea", "then": then}, headers=headers)


@pytest.mark.parametrize("headers", [KEY, None], ids=["keyed", "without a key"])
async def test_endpoint_cannot_commit_its_unit(
    shop: Shop, ann: httpx.AsyncClient, headers: dict[str, str] | None
) -> None:
    assert (await order(ann, "commit", headers)).status_code == 500
    assert await shop.counts() == (0, 0, 0)


async def test_endpoint_may_commit_savepoints(shop: Shop, ann: httpx.AsyncClient) -> None:
    first, again = await order(ann, "nested", KEY), await order(ann, "nested", KEY)
    assert (first.status_code, again.content) == (201, first.content)
    assert await shop.counts() == (1, 1, 1)


@pytest.mark.parametrize("headers", [KEY, None], ids=["keyed", "without a key"])
async def test_swallowed_error_of_a_statement_is_no_success_response(
    shop: Shop, ann: httpx.AsyncClient, headers: dict[str, str] | None
) -> None:
    assert (await order(ann, "swallow", headers)).status_code == 500
    assert await shop.counts() == (0, 0, 0)


async def test_secret_response_stores_only_that_it_was_executed(shop: Shop, ann: httpx.AsyncClient) -> None:
    first = await ann.post("/secret", json={"article": "tea"}, headers=KEY)
    assert (first.status_code, first.content) == (201, b"shown once")
    kept = await shop.superuser.fetch("SELECT result::text FROM idempotency_cache")
    assert not any("shown once" in row["result"] for row in kept)
    assert await shop.superuser.fetchval("SELECT count(*) FROM idempotency_bodies") == 0
    for article in ("tea", "another"):
        again = await ann.post("/secret", json={"article": article}, headers=KEY)
        assert (again.status_code, again.json()["error_code"]) == (410, "RESPONSE_NOT_KEPT")
        assert again.headers["location"] == first.headers["location"]
    assert await shop.counts() == (1, 1, 1)


@pytest.mark.guarantee("G61")
@pytest.mark.parametrize("kind", ["none", "empty", "object"])
async def test_principal_must_be_a_principal_or_a_non_empty_text(
    shop: Shop, ann: httpx.AsyncClient, kind: str
) -> None:
    refused = await ann.post("/unnamed", headers={**KEY, "X-Kind": kind})
    assert refused.status_code == 500
    assert await shop.counts() == (0, 0, 0)


async def sender() -> str:
    return "ann"


def notes(database: Database) -> FastAPI:
    """An application with one endpoint, after a dependency that turns every exception into another."""
    app = FastAPI()
    unit = unit_of_work(database, sender)

    async def catching() -> AsyncGenerator[None]:
        try:
            yield
        except Exception:  # noqa: BLE001 - as applications do
            raise HTTPException(418, "caught on the way") from None

    @app.post("/notes", status_code=201, dependencies=[Depends(catching)])
    async def note(body: dict[str, Any], unit: Annotated[UnitOfWork[str], Depends(unit)]) -> dict[str, str]:
        return await insert_order(unit, body["article"])

    _ = note
    return app


async def twice_and_another(app: Any, path: str) -> list[httpx.Response]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        bodies = ({"article": "tea"}, {"article": "tea"}, {"article": "coffee"})
        return [await client.post(path, json=body, headers=KEY) for body in bodies]


@pytest.mark.parametrize("secret", [None, SecretStr("a-secret-of-the-applications-own-for-keys")])
async def test_stored_response_is_known_before_the_unit_of_work(
    shop: Shop, database: Database, secret: SecretStr | None
) -> None:
    known, told = IdempotencySettings(secret=secret), dict[str, list[bool]]()

    async def ahead(request: Request) -> str:
        name = request.headers.get("x-user", "ann")
        told.setdefault(name, []).append(await has_stored_response(request, database, name, settings=known))
        return name

    app, note_unit = FastAPI(), unit_of_work(database, ahead, settings=known)

    @app.post("/notes", status_code=201)
    async def note(
        body: dict[str, Any], unit: Annotated[UnitOfWork[str], Depends(note_unit)]
    ) -> dict[str, str]:
        return await insert_order(unit, body["article"])

    _ = note
    app.add_middleware(IdempotencyMiddleware, settings=known)
    answers = await twice_and_another(app, "/notes")
    assert [one.status_code for one in answers] == [201, 201, 422]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        for headers in ({"X-User": "bob", **KEY}, {"X-User": "eve"}, {"X-User": "eve"}):
            assert (await client.post("/notes", json={"article": "tea"}, headers=headers)).status_code == 201
    assert told == {"ann": [False, True, True], "bob": [False], "eve": [False, False]}
    assert await shop.counts() == (4, 4, 2)


async def test_mounted_application_supports_units_of_work(shop: Shop, database: Database) -> None:
    app = FastAPI()
    app.mount("/sub", notes(database))
    app.add_middleware(IdempotencyMiddleware)
    first, again, other = await twice_and_another(app, "/sub/notes")
    assert (first.status_code, again.status_code, again.content) == (201, 201, first.content)
    assert (other.status_code, other.json()["error_code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert await shop.counts() == (1, 1, 1)


async def test_replay_passes_middlewares_that_catch_all_exceptions(shop: Shop, database: Database) -> None:
    async def answer_everything(request: Request, call_next: Any) -> Any:
        try:
            return await call_next(request)
        except Exception:  # noqa: BLE001 - as applications do
            return PlainTextResponse("caught", 500)

    app = notes(database)
    app.add_middleware(BaseHTTPMiddleware, dispatch=answer_everything)
    app.add_middleware(IdempotencyMiddleware)
    first, again, other = await twice_and_another(app, "/notes")
    assert (first.status_code, again.status_code, again.content) == (201, 201, first.content)
    assert other.status_code == 422
    assert await shop.counts() == (1, 1, 1)


async def test_second_middleware_has_no_effect(shop: Shop, database: Database) -> None:
    app = notes(database)
    for _ in range(2):
        app.add_middleware(IdempotencyMiddleware)
    first, again, _ = await twice_and_another(app, "/notes")
    assert first.status_code == 201
    assert again.headers.get_list("idempotent-replayed") == ["true"]
    assert "idempotency-status" not in again.headers


async def test_key_of_the_unit_is_that_of_the_client(database: Database) -> None:
    app = FastAPI()
    app.add_middleware(IdempotencyMiddleware)
    unit = unit_of_work(database, sender)

    @app.post("/key")
    async def key(unit: Annotated[UnitOfWork[str], Depends(unit)]) -> str | None:
        return unit.key

    _ = key
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.post("/key", headers={"Idempotency-Key": '"k"'})).json() == "k"
        assert (await client.post("/key")).json() is None


async def test_request_has_one_unit_of_work(shop: Shop, ann: httpx.AsyncClient) -> None:
    assert (await ann.post("/two-units", json={"article": "tea"})).status_code == 500
    assert await shop.counts() == (0, 0, 0)


async def test_command_is_counted_once_if_its_transaction_commits(database: Database) -> None:
    backbone = Backbone(database, [], verifier=SharedSecretVerifier())

    async def record(db: AsyncSession, command_type: str) -> None:
        await db.execute(text("SELECT 1"))
        async with db.begin_nested():
            backbone.count_after_commit(db, command_type, "COMPLETED")

    def counted(command_type: str) -> float | None:
        labels = {"command_type": command_type, "outcome": "COMPLETED"}
        return backbone.registry.get_sample_value("relaybox_commands_total", labels)

    async with database.sessions() as db:
        await record(db, "RolledBack")
        await db.rollback()
        for command_type in ("First", "Second"):
            await record(db, command_type)
            assert counted(command_type) is None
            await db.commit()
    assert [counted(one) for one in ("RolledBack", "First", "Second")] == [None, 1, 1]
