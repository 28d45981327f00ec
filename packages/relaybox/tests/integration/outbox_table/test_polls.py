"""The cost of a poll depends only on PENDING rows (G29), and polls find rows that commit late (G22)."""

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from relaybox.db import Database, DedicatedConnection, load_queries
from relaybox.outbox import retain
from relaybox.relay import _postgres
from relaybox.relay._lanes import Lanes
from relaybox.relay._messages import Message
from relaybox.relay._postgres import LowWatermark, connected, fetch_batch, mark_sent, use_partial_indexes
from relaybox.relay._statistics import Counters

from tests.fixtures.relays import put_events, rows_of

SQL = load_queries("relaybox.relay", "relay.sql")
ROWS = 1_000


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each advance of a low watermark be due at once."""
    monkeypatch.setattr(_postgres, "_ADVANCE_S", 0.0)


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[DedicatedConnection]:
    """Open a connection as a relay does."""
    async with connected(database) as connection:
        await use_partial_indexes(connection)
        yield connection


@pytest.fixture
async def lanes(connection: DedicatedConnection) -> Lanes:
    """Return all lanes, owned by this relay."""
    lanes = Lanes(lease_s=600)
    await lanes.renew(connection)
    return lanes


async def fetch(connection: DedicatedConnection, lanes: Lanes, *, start_seq: int = 0) -> list[Message]:
    return await fetch_batch(connection, lanes.usable(), rows_max=ROWS, in_flight=(), start_seq=start_seq)


async def mark(connection: DedicatedConnection, messages: list[Message]) -> int:
    fences = {(message.lane, message.epoch) for message in messages}
    return await mark_sent(
        connection,
        [message.seq for message in messages],
        [message.row_id for message in messages],
        fences,
        Counters(),
    )


async def relay(connection: DedicatedConnection, lanes: Lanes, low_watermark: LowWatermark) -> list[str]:
    """Fetch, advance the watermark and mark as a relay does, without Kafka; return the keys of the rows."""
    messages = await fetch(connection, lanes, start_seq=low_watermark.seq)
    if messages:
        await low_watermark.advance(connection, messages[-1].seq)
        await mark(connection, messages)
    return [str(message.key) for message in messages]


async def plan_of(connection: DedicatedConnection, lanes: Lanes, *, start_seq: int) -> dict[str, Any]:
    """Return the plan of a fetch from *start_seq* on, with its execution."""
    owned = lanes.usable()
    numbers, epochs = [lane.lane for lane in owned], [lane.epoch for lane in owned]
    explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + SQL["fetch_batch"]
    [row] = await connection.fetch(explain, numbers, epochs, ROWS, 2**24, "{}", start_seq)
    return json.loads(row[0])[0]["Plan"]


def pages(plan: dict[str, Any]) -> int:
    """Return the number of pages that the plan read."""
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def parts(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every node of *plan*."""
    return [plan, *(part for child in plan.get("Plans", ()) for part in parts(child))]


@pytest.mark.guarantee("G29")
async def test_poll_skips_marked_rows_that_an_old_snapshot_keeps(
    database: Database, superuser: asyncpg.Connection, connection: DedicatedConnection, lanes: Lanes
) -> None:
    low_watermark = LowWatermark()
    async with superuser.transaction(isolation="repeatable_read"):
        await superuser.fetch("SELECT pg_current_snapshot()")
        for _ in range(5):
            await put_events(database, "domain-events", ["key"], count=ROWS)
            assert len(await relay(connection, lanes, low_watermark)) == ROWS
        await put_events(database, "domain-events", ["last"])
        assert low_watermark.seq > 3 * ROWS
        from_watermark = await plan_of(connection, lanes, start_seq=low_watermark.seq)
        from_beginning = await plan_of(connection, lanes, start_seq=0)
    assert pages(from_watermark) * 2 < pages(from_beginning)
    assert await relay(connection, lanes, low_watermark) == ["last"]


@pytest.mark.guarantee("G29")
async def test_plan_made_on_an_empty_table_does_not_scan_it_later(
    superuser: asyncpg.Connection, connection: DedicatedConnection, lanes: Lanes
) -> None:
    await superuser.execute("VACUUM ANALYZE event_outbox")
    plan = await plan_of(connection, lanes, start_seq=0)
    outbox = [part for part in parts(plan) if part.get("Relation Name", "").startswith("event_outbox")]
    assert len(outbox) >= 4
    assert {part["Node Type"] for part in outbox} <= {"Index Scan", "Index Only Scan"}
    assert "Sort" not in {part["Node Type"] for part in parts(plan)}


@pytest.mark.guarantee("G22")
async def test_poll_includes_numbers_of_uncommitted_rows(
    database: Database, superuser: asyncpg.Connection, connection: DedicatedConnection, lanes: Lanes
) -> None:
    low_watermark = LowWatermark()
    late = superuser.transaction()
    await late.start()
    await put_events(superuser, "domain-events", ["late"])
    for _ in range(4):
        await put_events(database, "domain-events", ["early"])
        assert await relay(connection, lanes, low_watermark) == ["early"]
    assert low_watermark.seq <= 1
    await late.commit()
    assert await relay(connection, lanes, low_watermark) == ["late"]


@pytest.mark.guarantee("G22")
async def test_poll_includes_numbers_taken_before_the_row_is_inserted(
    database: Database, superuser: asyncpg.Connection, connection: DedicatedConnection, lanes: Lanes
) -> None:
    # An INSERT that takes a number has no transaction id yet, but a lock on the table. (It gets an id when it
    # takes the first number of a block of 32.)
    low_watermark = LowWatermark()
    await put_events(database, "domain-events", ["early"])
    await relay(connection, lanes, low_watermark)
    late = superuser.transaction()
    await late.start()
    await superuser.execute("LOCK TABLE event_outbox IN ROW EXCLUSIVE MODE")
    [taken] = await superuser.fetch("SELECT nextval('event_outbox_seq_seq') AS seq")
    for _ in range(4):
        await put_events(database, "domain-events", ["early"])
        assert await relay(connection, lanes, low_watermark) == ["early"]
    assert low_watermark.seq <= taken["seq"]
    await late.commit()


@pytest.mark.guarantee("G24")
async def test_rows_behind_a_failed_one_of_their_key_are_not_fetched(
    database: Database, superuser: asyncpg.Connection, connection: DedicatedConnection, lanes: Lanes
) -> None:
    await put_events(database, "domain-events", ["blocked", "free"], count=2)
    await superuser.execute("UPDATE event_outbox SET status = 'FAILED', error_data = '{}' WHERE seq = 1")
    assert [message.key for message in await fetch(connection, lanes)] == ["free", "free"]
    await superuser.execute("UPDATE event_outbox SET skipped_at = now() WHERE seq = 1")
    assert {message.key for message in await fetch(connection, lanes)} == {"blocked", "free"}


@pytest.mark.guarantee("G24")
async def test_poll_includes_rows_that_wait_for_an_operator(
    database: Database, superuser: asyncpg.Connection, connection: DedicatedConnection, lanes: Lanes
) -> None:
    low_watermark = LowWatermark()
    await put_events(database, "domain-events", ["failed"])
    await superuser.execute("UPDATE event_outbox SET status = 'FAILED', error_data = '{}'")
    for _ in range(4):
        await put_events(database, "domain-events", ["well"])
        assert await relay(connection, lanes, low_watermark) == ["well"]
    assert low_watermark.seq == 1
    await superuser.execute("UPDATE event_outbox SET status = 'PENDING' WHERE status = 'FAILED'")
    assert await relay(connection, lanes, low_watermark) == ["failed"]


async def test_poll_sometimes_begins_at_the_first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    low_watermark = LowWatermark()
    low_watermark.seq = 7
    assert [low_watermark.poll_start(), low_watermark.poll_start()] == [0, 7]
    monkeypatch.setattr(_postgres, "_FULL_SCAN_S", 0.0)
    low_watermark = LowWatermark()
    low_watermark.seq = 7
    assert [low_watermark.poll_start(), low_watermark.poll_start()] == [0, 0]


@pytest.mark.guarantee("G29")
async def test_rows_moved_by_retention_keep_their_order_and_are_marked(
    database: Database, connection: DedicatedConnection, lanes: Lanes
) -> None:
    await put_events(database, "domain-events", ["sent"])
    await mark(connection, await fetch(connection, lanes))
    await put_events(database, "domain-events", ["key"], count=3)
    taken = await fetch(connection, lanes)
    async with database.connection() as other:
        await retain(other, keep_h=0)
    await put_events(database, "domain-events", ["key"], first=4)
    assert [message.seq for message in await fetch(connection, lanes)] == [2, 3, 4, 5]
    assert await mark(connection, taken) == 3
    assert [row["status"] for row in await rows_of(database)] == ["SENT"] * 3 + ["PENDING"]
