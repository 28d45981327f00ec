"""Commands with a client's key: the key is recorded with the command, and a repetition is replayed."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import httpx2 as httpx
import pytest
from pydantic import SecretStr
from relaybox.db import Database
from relaybox.http import (
    Backbone,
    IdempotencyMiddleware,
    SharedSecretVerifier,
    aggregate_router,
    create_app,
    make_token,
)
from relaybox.settings import JwtSettings

from tests.fixtures.counters import AGENT, counters, submit

JWT = JwtSettings(secret=SecretStr("a secret of 32 bytes at the least"))
INCREASE = {"command_type": "Increase", "payload": {"by": 5}}
COUNT = {"command_type": "RequestCount", "payload": {}}


@pytest.fixture
async def backbone(database: Database) -> Backbone:
    return Backbone(database, [counters], verifier=SharedSecretVerifier(JWT), service="suite")


@pytest.fixture
async def ada(backbone: Backbone) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(
        title="t", version="1", lifespan=backbone.lifespan, checks={}, registry=backbone.registry
    )
    app.add_middleware(IdempotencyMiddleware, registry=backbone.registry)
    app.include_router(aggregate_router(backbone, counters), prefix="/counters")
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://test",
            headers={"Authorization": f"Bearer {make_token(JWT, 'ada')}"},
        ) as client,
    ):
        yield client


@pytest.fixture
async def counter(ada: httpx.AsyncClient) -> str:
    return (await ada.post("/counters", json={})).headers["location"].removesuffix("/state")


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


async def test_key_is_in_the_inbox_and_gets_the_stored_response(
    ada: httpx.AsyncClient, counter: str, superuser: asyncpg.Connection
) -> None:
    path = f"{counter}/commands"
    first, again = [await ada.post(path, json=INCREASE, headers=keyed('"key-1"')) for _ in range(2)]
    assert (first.status_code, again.status_code, again.content) == (200, 200, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert (await ada.get(f"{counter}/state")).json()["total"] == 5
    rows = await superuser.fetch("SELECT id, idempotency_key FROM command_inbox ORDER BY created_at DESC")
    assert rows[0]["idempotency_key"] == "key-1"
    assert rows[0]["id"] == UUID(first.json()["command_id"])
    assert len(rows) == 2


async def test_asynchronous_command_is_replayed_after_it_has_completed(
    ada: httpx.AsyncClient, backbone: Backbone, counter: str
) -> None:
    path = f"{counter}/commands"
    first = await ada.post(path, json=COUNT, headers=keyed("k"))
    assert first.status_code == 202
    pending = await ada.post(path, json=COUNT, headers=keyed("k"))
    other_key = await ada.post(path, json=COUNT, headers=keyed("other"))
    assert (other_key.status_code, other_key.json()["error_code"]) == (409, "DUPLICATE_COMMAND")
    assert other_key.json()["duplicate_command_id"] == first.json()["command_id"]
    command_id = first.json()["command_id"]
    aggregate_id = UUID(counter.rsplit("/", 1)[1])
    await submit(backbone.commands, "ReportCount", aggregate_id, caller=AGENT, command_id=command_id, found=3)
    done = await ada.post(path, json=COUNT, headers=keyed("k"))
    for again in (pending, done):
        assert (again.status_code, again.content) == (202, first.content)
        assert again.headers["location"] == first.headers["location"]
    assert (await ada.get(first.headers["location"])).json()["status"] == "COMPLETED"
    fresh = await ada.post(path, json=COUNT, headers=keyed("other"))
    assert fresh.status_code == 202
    assert fresh.json()["command_id"] != command_id


async def test_creation_with_a_repeated_key_creates_one_aggregate(
    ada: httpx.AsyncClient, superuser: asyncpg.Connection
) -> None:
    first, again = [await ada.post("/counters", json={"start": 7}, headers=keyed("k")) for _ in range(2)]
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert (await ada.get(first.headers["location"])).json() == first.json()
    assert await superuser.fetchval("SELECT count(*) FROM aggregate_snapshots") == 1


@pytest.mark.guarantee("G62")
async def test_other_command_with_the_same_key_is_refused(ada: httpx.AsyncClient, counter: str) -> None:
    path = f"{counter}/commands"
    await ada.post(path, json=INCREASE, headers=keyed("k"))
    other = await ada.post(path, json={"command_type": "Increase", "payload": {"by": 6}}, headers=keyed("k"))
    second = (await ada.post("/counters", json={})).headers["location"].removesuffix("/state")
    elsewhere = await ada.post(f"{second}/commands", json=INCREASE, headers=keyed("k"))
    for refused in (other, elsewhere):
        assert (refused.status_code, refused.json()["error_code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert (await ada.get(f"{counter}/state")).json()["total"] == 5
    assert (await ada.get(f"{second}/state")).json()["total"] == 0


@pytest.mark.guarantee("G65")
async def test_key_of_a_refused_command_stays_unused(ada: httpx.AsyncClient, counter: str) -> None:
    path = f"{counter}/commands"
    refused = await ada.post(
        path, json={"command_type": "Increase", "payload": {"by": 101}}, headers=keyed("k")
    )
    assert refused.status_code == 422
    assert (await ada.post(path, json=INCREASE, headers=keyed("k"))).status_code == 200


@pytest.mark.guarantee("G68")
async def test_key_does_not_open_another_principals_aggregate(
    ada: httpx.AsyncClient, counter: str, superuser: asyncpg.Connection
) -> None:
    path = f"{counter}/commands"
    await ada.post(path, json=INCREASE, headers=keyed("k"))
    bob = {"Authorization": f"Bearer {make_token(JWT, 'bob')}", **keyed("k")}
    assert (await ada.post(path, json=INCREASE, headers=bob)).status_code == 404
    # The aggregate now has another owner: the first owner may not get the stored response.
    await superuser.execute("UPDATE aggregate_snapshots SET owner = 'bob'")
    assert (await ada.post(path, json=INCREASE, headers=keyed("k"))).status_code == 404


@pytest.mark.guarantee("G70")
async def test_expired_key_starts_a_new_command(
    ada: httpx.AsyncClient, counter: str, superuser: asyncpg.Connection
) -> None:
    path = f"{counter}/commands"
    first = await ada.post(path, json=INCREASE, headers=keyed("k"))
    await superuser.execute("UPDATE idempotency_cache SET expires_at = now() - interval '1 s'")
    second, again = [await ada.post(path, json=INCREASE, headers=keyed("k")) for _ in range(2)]
    assert second.json()["command_id"] != first.json()["command_id"]
    assert again.content == second.content
    assert (await ada.get(f"{counter}/state")).json()["total"] == 10


async def test_malformed_key_of_a_command_is_refused(ada: httpx.AsyncClient, counter: str) -> None:
    refused = await ada.post(f"{counter}/commands", json=INCREASE, headers=keyed("a b"))
    assert (refused.status_code, refused.json()["error_code"]) == (400, "IDEMPOTENCY_KEY_INVALID")


@pytest.mark.guarantee("G05")
async def test_key_resolves_a_command_whose_response_was_lost(ada: httpx.AsyncClient, counter: str) -> None:
    path = f"{counter}/commands"
    lost = asyncio.create_task(ada.post(path, json=INCREASE, headers=keyed("k")))
    await asyncio.sleep(0)
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    while (answer := await ada.post(path, json=INCREASE, headers=keyed("k"))).status_code == 409:
        pass
    assert answer.status_code == 200
    assert (await ada.get(f"{counter}/state")).json()["total"] == 5


async def test_row_decides_a_key_race_of_two_processes(
    ada: httpx.AsyncClient, postgres_settings: object, database: Database
) -> None:
    """Two creations with one key in two processes: no aggregate serialises them, only the claim does."""
    other = Backbone(Database(database.settings), [counters], verifier=SharedSecretVerifier(JWT))
    app = create_app(title="t", version="1", lifespan=other.lifespan, checks={}, registry=other.registry)
    app.add_middleware(IdempotencyMiddleware)
    app.include_router(aggregate_router(other, counters), prefix="/counters")
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://test", headers=dict(ada.headers)
        ) as ada_elsewhere,
    ):
        for number in range(20):
            requests = [
                client.post("/counters", json={}, headers=keyed(f"k{number}"))
                for client in (ada, ada_elsewhere)
                for _ in range(2)
            ]
            answers = await asyncio.gather(*requests)
            assert {one.status_code for one in answers} <= {201, 409}
            assert len({one.content for one in answers if one.status_code == 201}) == 1
    async with database.connection() as connection:
        [row] = await connection.fetch("SELECT count(*) AS made FROM aggregate_snapshots")
    assert row["made"] == 20
