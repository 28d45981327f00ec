"""The first byte of a response is sent after COMMIT, also if the client has disconnected (G63, G64)."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest
from relaybox.db import Database
from relaybox.http import make_token
from sqlalchemy import event

from tests.fixtures.shop import JWT, Shop

_BODY = json.dumps({"article": "tea"}).encode()


def scope(key: str) -> dict[str, Any]:
    """Return the ASGI scope of a request."""
    headers = {
        "authorization": f"Bearer {make_token(JWT, 'ann')}",
        "content-type": "application/json",
        "idempotency-key": key,
    }
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/orders",
        "raw_path": b"/orders",
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("test", 1),
        "server": ("shop", 80),
    }


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": _BODY, "more_body": False}


@pytest.mark.guarantee("G63")
async def test_first_byte_is_sent_after_commit_has_returned(shop: Shop, database: Database) -> None:
    steps: list[str] = []

    def committed(_session: object) -> None:
        steps.append("committed")

    async def send(message: dict[str, Any]) -> None:
        steps.append(message["type"])
        if message["type"] == "http.response.start":
            steps.append(f"seen by others: {await shop.counts()}")

    event.listen(database.sessions.class_.sync_session_class, "after_commit", committed)
    try:
        await shop.app(scope("k"), receive, send)
    finally:
        event.remove(database.sessions.class_.sync_session_class, "after_commit", committed)
    start = ["committed", "http.response.start", "seen by others: (1, 1, 1)"]
    assert steps == [*start, "http.response.body"]


@pytest.mark.guarantee("G64")
async def test_request_cancelled_before_commit_leaves_nothing(shop: Shop) -> None:
    reached = asyncio.Event()

    async def pause() -> None:
        reached.set()
        await asyncio.Event().wait()

    shop.pause = pause
    running = asyncio.create_task(shop.app(scope("k"), receive, _discard))
    await reached.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await shop.counts() == (0, 0, 0)
    shop.pause = None
    await shop.app(scope("k"), receive, _discard)
    assert await shop.counts() == (1, 1, 1)


@pytest.mark.guarantee("G64")
async def test_request_cancelled_during_commit_is_executed_completely(
    shop: Shop, superuser: asyncpg.Connection
) -> None:
    """A deferred trigger delays COMMIT until the request has been cancelled."""
    await superuser.execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION hold();"
        "SELECT pg_advisory_lock(42)"
    )
    running = asyncio.create_task(shop.app(scope("k"), receive, _discard))
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted"
    while not await superuser.fetchval(held):
        pass
    running.cancel()
    await asyncio.sleep(0)
    assert not running.done()
    await superuser.execute("SELECT pg_advisory_unlock(42)")
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
    assert await shop.counts() == (1, 1, 1)


async def _discard(_message: object) -> None:
    """Report that the client has disconnected."""
