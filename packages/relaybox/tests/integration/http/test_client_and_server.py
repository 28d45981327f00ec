"""The client and the unit of work together: one effect, whatever requests or responses are lost."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

import httpx2 as httpx
import pytest
from fastapi import Depends, FastAPI
from prometheus_client import CollectorRegistry
from relaybox.db import Database
from relaybox.http import IdempotencyMiddleware, UnitOfWork, create_app, unit_of_work
from relaybox.http.client import IdempotentClient, ResponseUnknown
from relaybox.outbox import save_to_outbox

from tests.fixtures.events import make_event


class Lossy(httpx.AsyncBaseTransport):
    """Passes every request to the application, and drops the given number of responses."""

    def __init__(self, app: FastAPI) -> None:
        self.loses = 0
        self._app = httpx.ASGITransport(app)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._app.handle_async_request(request)
        if self.loses:
            self.loses -= 1
            raise httpx.ReadError("lost", request=request)
        return answer


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
    yield


@pytest.fixture
def line(database: Database) -> Lossy:
    app = create_app(title="t", version="1", lifespan=lifespan, checks={}, registry=CollectorRegistry())
    app.add_middleware(IdempotencyMiddleware)

    async def sender() -> str:
        return "ann"

    @app.post("/tell/{name}", status_code=201)
    async def tell(
        name: UUID,
        body: dict[str, Any],
        unit: Annotated[UnitOfWork[str], Depends(unit_of_work(database, sender))],
    ) -> dict[str, Any]:
        event = make_event(aggregate_id=str(name))
        await save_to_outbox("domain-events", str(name), event.model_dump(), unit.db)
        return {"told": str(event.event_id), "n": body["n"]}

    _ = tell
    return Lossy(app)


@pytest.fixture
async def client(line: Lossy, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[IdempotentClient]:
    monkeypatch.setattr("relaybox.http.client._client.random", lambda: 0.0)
    async with httpx.AsyncClient(transport=line, base_url="http://test") as http:
        yield IdempotentClient(http, attempts_max=3)


PATH = "/tell/6c1f1c1e-0000-4000-8000-000000000000"


async def told(database: Database) -> list[str]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT payload ->> 'event_id' AS event_id FROM event_outbox")
    return [row["event_id"] for row in rows]


async def test_request_with_lost_responses_takes_effect_once(
    database: Database, line: Lossy, client: IdempotentClient
) -> None:
    line.loses = 2
    answer = await client.request("POST", PATH, json={"n": 1})
    assert (answer.status_code, answer.headers["Idempotent-Replayed"]) == (201, "true")
    assert [answer.json()["told"]] == await told(database)


async def test_caller_continues_with_the_key_of_an_unknown_response(
    database: Database, line: Lossy, client: IdempotentClient
) -> None:
    line.loses = 3
    with pytest.raises(ResponseUnknown) as unknown:
        await client.request("POST", PATH, json={"n": 1})
    key = unknown.value.key
    assert (await client.request("POST", PATH, key=key, json={"n": 2})).status_code == 422
    answer = await client.request("POST", PATH, key=key, json={"n": 1})
    assert [answer.json()["told"]] == await told(database)
