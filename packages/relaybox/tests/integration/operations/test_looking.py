"""Queries of operators on the outbox: rows and blocked keys."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from relaybox.db import Database
from relaybox.operations import (
    Fault,
    Selection,
    SelectionEmpty,
    State,
    blocked_keys,
    list_rows,
    retry,
    show_row,
    skip,
)

from tests.fixtures.outbox_rows import delay_row, fail_rows, mark_sent
from tests.fixtures.relays import put_events, rows_of

EVERY = Selection()


@pytest.fixture
async def two_keys(database: Database) -> Database:
    """Rows 1 to 4 of ``a``, then 5 to 8 of ``b``."""
    async with database.connection() as connection:
        await put_events(connection, "domain-events", ["a"], count=4)
        await put_events(connection, "domain-events", ["b"], count=4)
    return database


async def seqs(database: Database, selection: Selection, *states: State) -> list[int]:
    async with database.connection() as connection:
        return [
            row.seq for row in await list_rows(connection, selection, states or tuple(State), rows_max=50)
        ]


@pytest.mark.guarantee("G32")
async def test_blocked_keys_have_cause_age_and_rows_behind(
    two_keys: Database,
) -> None:
    await mark_sent(two_keys, 1)
    await fail_rows(two_keys, 2, 3)
    async with two_keys.connection() as connection:
        found = await blocked_keys(connection, EVERY, keys_max=10)

    assert (found.keys_total, list(found.lanes)) == (1, [])
    [blocked] = found.keys
    assert (blocked.head.key, blocked.head.seq, blocked.behind) == ("a", 2, 2)
    assert (blocked.head.state, blocked.head.attempts) == (State.FAILED, 4)
    assert (blocked.head.fault, blocked.head.error_class) == ("row", "RecordTooLarge")
    assert blocked.head.error_message == "RecordTooLarge it was"
    assert blocked.head.failed_at is not None
    since = datetime.now(UTC) - blocked.head.failed_at
    assert timedelta(minutes=59) < since < timedelta(minutes=61)
    assert blocked.lane in range(8)


@pytest.mark.guarantee("G32")
async def test_retrying_key_has_the_time_of_its_next_attempt(two_keys: Database) -> None:
    await delay_row(two_keys, 5)
    async with two_keys.connection() as connection:
        [blocked] = (await blocked_keys(connection, EVERY, keys_max=10)).keys
    assert (blocked.head.key, blocked.head.state, blocked.behind) == ("b", State.RETRYING, 3)
    assert blocked.head.next_attempt_at is not None
    assert blocked.head.next_attempt_at > datetime.now(UTC)


@pytest.mark.guarantee("G32")
async def test_blocked_keys_are_sorted_by_age_and_counted(two_keys: Database) -> None:
    await delay_row(two_keys, 1)
    await fail_rows(two_keys, 5)
    async with two_keys.connection() as connection:
        found = await blocked_keys(connection, EVERY, keys_max=1)
    assert ([one.head.key for one in found.keys], found.keys_total) == (["b"], 2)


@pytest.mark.guarantee("G32")
async def test_skipped_head_does_not_block_its_key(two_keys: Database) -> None:
    await fail_rows(two_keys, 1)
    async with two_keys.connection() as connection:
        await skip(connection, Selection(seqs=[1]), by="ann", reason="test data")
        assert (await blocked_keys(connection, EVERY, keys_max=10)).keys_total == 0


async def test_failed_row_without_key_blocks_no_row(database: Database) -> None:
    await put_events(database, "domain-events", ["a"], count=2)
    async with database.connection() as connection:
        await connection.fetch("UPDATE event_outbox SET key = NULL")
        await fail_rows(database, 1, 2)
        found = await blocked_keys(connection, EVERY, keys_max=10)
    assert [(one.head.key, one.behind) for one in found.keys] == [(None, 0), (None, 0)]


@pytest.mark.guarantee("G32")
async def test_lane_with_fault_has_its_pending_rows(two_keys: Database) -> None:
    async with two_keys.connection() as connection:
        await connection.fetch(
            "UPDATE relay_lanes SET fault = 'an unknown marker' WHERE"
            " (SELECT key_hash FROM event_outbox WHERE seq = 1) BETWEEN hash_min AND hash_max"
        )
        [lane] = (await blocked_keys(connection, EVERY, keys_max=10)).lanes
        [of_a] = await connection.fetch(
            "SELECT lane, count(*) FROM event_outbox JOIN relay_lanes"
            " ON key_hash BETWEEN hash_min AND hash_max WHERE fault IS NOT NULL GROUP BY lane"
        )
    assert (lane.lane, lane.fault, lane.pending) == (of_a["lane"], "an unknown marker", of_a["count"])
    assert lane.oldest is not None


async def test_rows_are_listed_by_state(two_keys: Database) -> None:
    await mark_sent(two_keys, 1)
    await fail_rows(two_keys, 2, 5)
    await delay_row(two_keys, 6)
    async with two_keys.connection() as connection:
        await skip(connection, Selection(seqs=[5]), by="ann", reason="test data")
    by_state = {state: await seqs(two_keys, EVERY, state) for state in State}
    assert by_state == {
        State.PENDING: [3, 4, 7, 8],
        State.RETRYING: [6],
        State.FAILED: [2],
        State.SKIPPED: [5],
        State.SENT: [1],
    }


@pytest.mark.guarantee("G32")
async def test_rows_are_selected_by_id_key_error_class_fault_and_age(two_keys: Database) -> None:
    await fail_rows(two_keys, 1)
    await fail_rows(two_keys, 5, fault="link", error_class="LinkDown")
    async with two_keys.connection() as connection:
        await connection.fetch(
            "UPDATE event_outbox SET created_at = created_at - interval '1 day' WHERE seq = 8"
        )
    [second] = await rows_of(two_keys, "seq = 2")
    found = {
        "ids": await seqs(two_keys, Selection(ids=[second["id"]])),
        "seqs": await seqs(two_keys, Selection(seqs=[3, 7, 99])),
        "keys": await seqs(two_keys, Selection(keys=["b", "c"])),
        "classes": await seqs(two_keys, Selection(error_classes=["LinkDown"])),
        "fault": await seqs(two_keys, Selection(fault=Fault.ROW)),
        "age": await seqs(two_keys, Selection(older_than_s=3_600)),
        "all at once": await seqs(two_keys, Selection(keys=["a"], seqs=[1, 5], fault=Fault.ROW)),
    }
    assert found == {
        "ids": [2],
        "seqs": [3, 7],
        "keys": [5, 6, 7, 8],
        "classes": [5],
        "fault": [1],
        "age": [8],
        "all at once": [1],
    }


async def test_row_has_payload_only_on_request(two_keys: Database) -> None:
    await fail_rows(two_keys, 1)
    [row] = await rows_of(two_keys, "seq = 1")
    async with two_keys.connection() as connection:
        await connection.fetch('UPDATE event_outbox SET payload = payload || \'{"name": "Ann"}\'')
        details = await show_row(connection, row["id"])
        whole = await show_row(connection, 1, with_payload=True)
    assert set(details.envelope) == {
        *("event_id", "event_type", "event_version", "aggregate_type", "aggregate_id", "version"),
        *("correlation_id", "causation_id", "timestamp"),
    }
    assert details.payload is None
    assert "Ann" not in repr(details)
    assert whole.payload["name"] == "Ann"
    assert whole.row == details.row


@pytest.mark.guarantee("G32")
async def test_row_has_the_actions_of_operators(two_keys: Database) -> None:
    await fail_rows(two_keys, 1)
    async with two_keys.connection() as connection:
        await retry(connection, Selection(seqs=[1]), by="ann", reason="the topic is wider now")
        await fail_rows(two_keys, 1)
        await skip(connection, Selection(seqs=[1]), by="ben", reason="not needed")
        details = await show_row(connection, 1)
        other = await show_row(connection, 2)
    actions = [(act["act"], act["by"], act["reason"]) for act in details.acts]
    assert actions == [("retry", "ann", "the topic is wider now"), ("skip", "ben", "not needed")]
    assert other.acts == []


@pytest.mark.parametrize("payload", ["[1]", '"text"', "null"])
async def test_row_without_json_object_is_shown(database: Database, payload: str) -> None:
    async with database.connection() as connection:
        await connection.fetch(
            "INSERT INTO event_outbox (topic, payload) VALUES ('t', $1::text::jsonb)", payload
        )
        details = await show_row(connection, 1)
    assert (details.row.event_id, details.envelope) == (None, {})


async def test_unknown_row_is_named(database: Database) -> None:
    unknown = uuid.uuid4()
    async with database.connection() as connection:
        with pytest.raises(SelectionEmpty, match=str(unknown)):
            await show_row(connection, unknown)
