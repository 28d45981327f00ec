"""A response is sent only after COMMIT has returned (G02)."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import httpx2 as httpx
import pytest

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.product import SESSIONS, Writer

_LOCK = 20_202
#: Runs within COMMIT, after all statements of the transaction, and waits there for the test.
_HOLD_COMMIT = """
    CREATE FUNCTION hold_commit() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock(20202); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER hold_commit AFTER INSERT ON command_inbox DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.command_type = 'AbandonSession') EXECUTE FUNCTION hold_commit();
"""
_WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND NOT granted"


@pytest.fixture
async def holder(owner: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """Return the owner's connection with a trigger that pauses commits."""
    await owner.execute(_HOLD_COMMIT)
    yield owner
    await owner.execute("SELECT pg_advisory_unlock_all(); DROP FUNCTION hold_commit() CASCADE")


@pytest.mark.guarantee("G02")
async def test_response_is_sent_after_commit_has_returned(writer: Writer, holder: asyncpg.Connection) -> None:
    session = writer.create()
    await holder.execute("SELECT pg_advisory_lock($1)", _LOCK)
    async with httpx.AsyncClient(
        base_url=str(writer.base_url), headers=writer.headers, timeout=WAIT_S, trust_env=False
    ) as client:
        command = client.post(f"{SESSIONS}/{session}/commands", json={"command_type": "AbandonSession"})
        answer = asyncio.create_task(command)
        async with asyncio.timeout(WAIT_S):
            while not await holder.fetchval(_WAITING, _LOCK):  # noqa: ASYNC110 - PostgreSQL does not tell
                await asyncio.sleep(0.01)
        # A response that did not wait for its commit would have been sent before this one.
        state = await client.get(f"{SESSIONS}/{session}/state")
        assert state.json()["status"] == "IN_PROGRESS"
        assert not answer.done()
        await holder.execute("SELECT pg_advisory_unlock($1)", _LOCK)
        assert (await answer).status_code == 200
        state = await client.get(f"{SESSIONS}/{session}/state")
        assert state.json()["status"] == "ABANDONED"
