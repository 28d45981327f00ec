"""Retention removes old SENT rows a slot at a time, and removes no other row (G29)."""

from typing import Any

import asyncpg
import pytest
from relaybox.db import Database
from relaybox.outbox import RetentionStep, retain

from tests.fixtures.relays import put_events, rows_of

CLOSED, SEALED, MOVED, EMPTIED, BUSY = (
    RetentionStep.CLOSED,
    RetentionStep.SEALED,
    RetentionStep.MOVED,
    RetentionStep.EMPTIED,
    RetentionStep.BUSY,
)
SEND = """
    UPDATE event_outbox SET status = 'SENT', sent_at = now() WHERE seq IN (
        SELECT seq FROM event_outbox WHERE key = 'key' AND status = 'PENDING' ORDER BY seq LIMIT $1)
"""
FAIL = "UPDATE event_outbox SET status = 'FAILED', error_data = '{}', skipped_at = $2 WHERE seq = $1"
LOCKER = "SELECT pg_advisory_lock('event_outbox'::regclass::int, hashtext('retain_outbox'))"


async def fill(database: Database, *, sent: int, pending: int = 0) -> None:
    """Write the given numbers of rows, the SENT ones first."""
    async with database.connection() as connection:
        await put_events(connection, "domain-events", ["key"], count=sent + pending)
        await connection.fetch(SEND, sent)


async def make_older(superuser: asyncpg.Connection, *, hours: float) -> None:
    """Move all times of the slots into the past."""
    await superuser.execute(
        "UPDATE event_outbox_slots SET opened_at = opened_at - $1 * interval '1 h',"
        " closed_at = closed_at - $1 * interval '1 h', sealed_at = sealed_at - $1 * interval '1 h'",
        hours,
    )


async def step(database: Database, keep_h: float) -> list[RetentionStep]:
    async with database.connection() as connection:
        return await retain(connection, keep_h=keep_h)


def what_stays(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those of *rows* that are not SENT, without their slot."""
    return [
        {name: one for name, one in row.items() if name != "slot"} for row in rows if row["status"] != "SENT"
    ]


@pytest.mark.guarantee("G29")
async def test_retention_removes_old_sent_rows_and_changes_no_others(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await fill(database, sent=50, pending=4)
    await superuser.execute(FAIL, 52, None)
    await superuser.execute(
        "UPDATE event_outbox SET skipped_at = now(), status = 'FAILED', error_data = '{}' WHERE seq = 53"
    )
    await superuser.execute("UPDATE event_outbox SET next_attempt_at = now(), attempts = 2 WHERE seq = 54")
    before = await rows_of(database)
    assert await step(database, 0) == [CLOSED, SEALED, EMPTIED]
    after = await rows_of(database)
    assert [row["seq"] for row in after] == [51, 52, 53, 54]
    assert what_stays(after) == what_stays(before)


@pytest.mark.guarantee("G29")
async def test_sent_row_stays_for_the_whole_retention_time(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await fill(database, sent=10)
    assert await step(database, 2) == []
    await make_older(superuser, hours=1)
    assert await step(database, 2) == [CLOSED, SEALED]
    await fill(database, sent=10)
    await make_older(superuser, hours=0.9)
    assert await step(database, 2) == []
    await make_older(superuser, hours=1.2)
    assert [row["slot"] for row in await rows_of(database)] == [0] * 10 + [1] * 10
    assert EMPTIED in await step(database, 2)
    assert [row["slot"] for row in await rows_of(database)] == [1] * 10
    await make_older(superuser, hours=2)
    await step(database, 2)
    assert await rows_of(database) == []


@pytest.mark.guarantee("G29")
async def test_retention_leaves_no_dead_rows(database: Database, superuser: asyncpg.Connection) -> None:
    await fill(database, sent=1_000)
    await step(database, 0)
    size = "SELECT sum(pg_relation_size(relid)) FROM pg_partition_tree('event_outbox') WHERE isleaf"
    assert await superuser.fetchval(size) == 0


@pytest.mark.guarantee("G29")
async def test_slots_are_used_in_turn_without_end(database: Database) -> None:
    for _ in range(9):
        await fill(database, sent=10)
        assert await step(database, 0) == [CLOSED, SEALED, EMPTIED]
    assert await rows_of(database) == []


@pytest.mark.guarantee("G22")
async def test_row_that_commits_late_into_an_old_slot_stays(
    database: Database, superuser: asyncpg.Connection
) -> None:
    late = superuser.transaction()
    await late.start()
    await put_events(superuser, "domain-events", ["late"])
    await fill(database, sent=10)
    assert await step(database, 0) == [CLOSED, BUSY]
    assert len(await rows_of(database)) == 10
    await late.commit()
    await step(database, 0)
    assert [row["key"] for row in await rows_of(database)] == ["late"]


@pytest.mark.guarantee("G29")
async def test_row_written_into_a_sealed_slot_is_moved_before_emptying(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await fill(database, sent=10)
    await make_older(superuser, hours=1)
    assert await step(database, 2) == [CLOSED, SEALED]
    # As an INSERT does that has read the number of the open slot and was then delayed.
    await superuser.execute(
        "INSERT INTO event_outbox (slot, topic, key, payload) VALUES (0, 't', 'late', '{}')"
    )
    await make_older(superuser, hours=3)
    assert EMPTIED in await step(database, 2)
    assert [(row["key"], row["slot"] > 0) for row in await rows_of(database)] == [("late", True)]


@pytest.mark.guarantee("G29")
async def test_retention_does_not_wait_for_a_reader(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await fill(database, sent=10)
    reader = superuser.transaction()
    await reader.start()
    await superuser.fetch("SELECT count(*) FROM event_outbox")
    assert await step(database, 0) == [CLOSED, SEALED, BUSY]
    await fill(database, sent=10)  # does not wait for a lock
    await reader.rollback()
    assert EMPTIED in await step(database, 0)


@pytest.mark.guarantee("G29")
async def test_only_one_relay_runs_retention_at_a_time(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await fill(database, sent=10)
    await superuser.fetch(LOCKER)
    assert await step(database, 0) == []
    await superuser.fetch("SELECT pg_advisory_unlock_all()")
    assert EMPTIED in await step(database, 0)


@pytest.mark.guarantee("G29")
async def test_backlog_is_not_moved_before_its_slot_is_old_enough(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await fill(database, sent=10, pending=1_500)
    await make_older(superuser, hours=1)
    assert await step(database, 2) == [CLOSED]
    await make_older(superuser, hours=3)
    assert MOVED in await step(database, 2)
    assert len(what_stays(await rows_of(database))) == 1_500


@pytest.mark.guarantee("G29")
async def test_retention_refuses_a_transaction_with_an_old_snapshot(database: Database) -> None:
    async with database.connection() as connection:
        await connection.fetch("SELECT set_config('default_transaction_isolation', 'repeatable read', false)")
        try:
            with pytest.raises(asyncpg.RaiseError, match="READ COMMITTED"):
                await retain(connection, keep_h=0)
        finally:
            await connection.fetch(
                "SELECT set_config('default_transaction_isolation', 'read committed', false)"
            )


@pytest.mark.guarantee("G29")
async def test_services_role_cannot_empty_or_switch_slots(database: Database) -> None:
    async with database.connection() as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("TRUNCATE event_outbox_0")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT setval('event_outbox_turn', 1)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT relaybox_move_unsent(0, 1)")
