"""Actions of operators on rows: order, records and previews."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest
from relaybox.db import Database, executor_of
from relaybox.operations import (
    Action,
    Selection,
    SelectionEmpty,
    list_actions,
    preview,
    purge,
    retry,
    skip,
)
from relaybox.relay import Relay, RelaySignal
from relaybox.settings import KafkaSettings, RelaySettings

from tests.fixtures.outbox_rows import delay_row, fail_rows, mark_sent, operator_acts
from tests.fixtures.relays import (
    first_appearances,
    notify,
    put_events,
    read_topic,
    rows_of,
    running,
    wait_until_all_sent,
)
from tests.fixtures.signal_recorder import SignalRecorder
from tests.fixtures.waiting import eventually

NO_POLL = RelaySettings(poll_interval=3_600)
EVERY = Selection()


async def put_in_order(database: Database, topic: str, *keys: str, count: int = 3) -> None:
    """Write *count* events of each key, key by key, with consecutive numbers."""
    for key in keys:
        await put_events(database, topic, [key], count=count)


async def states_of(database: Database) -> list[tuple[str, bool]]:
    return [(row["status"], row["skipped_at"] is not None) for row in await rows_of(database)]


@pytest.mark.guarantee("G32")
async def test_retried_row_is_published_before_rows_behind_it(
    database: Database, kafka_settings: KafkaSettings, make_topic: Callable[..., str]
) -> None:
    narrow, wide = make_topic(max_message_bytes="2000"), make_topic()
    await put_events(database, narrow, ["a"], size=3_000)
    await put_events(database, wide, ["a"], first=2, count=3)
    await put_events(database, wide, ["b"], count=3)
    async with database.connection() as connection:
        # Three attempts have failed: the next failure is the last.
        await connection.fetch("UPDATE event_outbox SET attempts = 3 WHERE seq = 1")
        signals = SignalRecorder()
        async with running(Relay(database, kafka_settings, NO_POLL, on_signal=signals)):
            await signals.wait_for(RelaySignal.ROWS_CHARGED)
            await signals.wait_for(RelaySignal.BATCH_MARKED)
            assert [row["seq"] for row in await rows_of(database, "status = 'FAILED'")] == [1]
            # The operator retries the row after the cause is fixed.
            await connection.fetch("UPDATE event_outbox SET topic = $1 WHERE seq = 1", wide)
            assert await retry(connection, Selection(seqs=[1]), by="ann", reason="mended") == 1
            await wait_until_all_sent(database)  # without a poll: the action notifies the relays

    records = read_topic(kafka_settings.bootstrap_servers, wide)
    assert first_appearances(records) == {"a": [1, 2, 3, 4], "b": [1, 2, 3]}
    [row] = await rows_of(database, "seq = 1")
    assert (row["status"], row["attempts"], row["error_data"]) == ("SENT", 0, None)


@pytest.mark.guarantee("G32")
async def test_row_retried_behind_a_failed_row_waits(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    await put_in_order(database, topic, "a", "b")
    await fail_rows(database, 1, 2)
    signals = SignalRecorder()
    async with (
        database.connection() as connection,
        running(Relay(database, kafka_settings, NO_POLL, on_signal=signals)),
    ):
        await signals.wait_for(RelaySignal.BATCH_MARKED)
        found = await preview(connection, Action.RETRY, Selection(seqs=[2]), rows_max=10)
        assert (found.rows_total, found.rows_behind_another) == (1, 1)
        assert await retry(connection, Selection(seqs=[2]), by="ann") == 1
        await put_events(connection, topic, ["c"])
        await notify(database)
        await signals.wait_for(RelaySignal.BATCH_MARKED, 2)  # the second poll fetched only this row
        assert [status for status, _ in await states_of(database)][:3] == ["FAILED", "PENDING", "PENDING"]
        await retry(connection, Selection(seqs=[1]), by="ann")
        await wait_until_all_sent(database)

    records = read_topic(kafka_settings.bootstrap_servers, topic)
    assert first_appearances(records) == {"a": [1, 2, 3], "b": [1, 2, 3], "c": [1]}


@pytest.mark.guarantee("G32")
async def test_skipped_row_unblocks_its_key_and_is_recorded(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    await put_in_order(database, topic, "a")
    await fail_rows(database, 1)
    signals = SignalRecorder()
    async with (
        database.connection() as connection,
        running(Relay(database, kafka_settings, NO_POLL, on_signal=signals)),
    ):
        await signals.wait_for(RelaySignal.LANES_CHANGED)
        await signals.wait_for(RelaySignal.IDLE)
        assert await skip(connection, Selection(keys=["a"]), by="ann", reason="not needed") == 1
        await wait_until_all_sent(database)

    records = read_topic(kafka_settings.bootstrap_servers, topic)
    assert first_appearances(records) == {"a": [2, 3]}
    [gap, *_] = await rows_of(database)
    assert (gap["status"], gap["skipped_at"] is not None) == ("FAILED", True)
    [act] = await operator_acts(database)
    assert (act["actor"], act["act"], act["reason"]) == ("ann", "skip", "not needed")
    assert act["at"] is not None
    assert act["target"]["selection"] == {"keys": ["a"]}
    [row] = act["target"]["rows"]
    assert (row["seq"], row["key"], row["event_id"]) == (1, "a", gap["payload"]["event_id"])
    assert (row["error_class"], row["attempts"]) == ("RecordTooLarge", 4)


@pytest.mark.guarantee("G32")
async def test_only_the_first_failed_row_of_a_key_can_be_skipped(database: Database) -> None:
    await put_in_order(database, "domain-events", "a", "b")
    await fail_rows(database, 1, 2, 4)
    async with database.connection() as connection:
        found = await preview(connection, Action.SKIP, Selection(seqs=[2, 4]), rows_max=10)
        assert ([row.seq for row in found.rows], found.rows_total) == ([4], 1)
        assert found.rows_behind_another == 1
        assert await skip(connection, Selection(seqs=[2, 4]), by="ann", reason="test") == 1
        with pytest.raises(SelectionEmpty, match="first FAILED row of its key"):
            await skip(connection, Selection(seqs=[2]), by="ann", reason="test")
        assert [row["seq"] for row in await rows_of(database, "skipped_at IS NOT NULL")] == [4]
        assert await skip(connection, Selection(seqs=[1, 2]), by="ann", reason="test") == 2


@pytest.mark.guarantee("G32")
async def test_only_failed_rows_are_retried_or_skipped(database: Database) -> None:
    await put_in_order(database, "domain-events", "a", "b")
    await mark_sent(database, 1)
    await delay_row(database, 2)
    await fail_rows(database, 4)
    before = await rows_of(database, "seq < 4")
    async with database.connection() as connection:
        assert await skip(connection, EVERY, by="ann", reason="test") == 1
        assert await retry(connection, EVERY, by="ann") == 0  # skipped rows are final
        with pytest.raises(SelectionEmpty, match="FAILED"):
            await retry(connection, Selection(seqs=[4]), by="ann")
    assert await rows_of(database, "seq < 4") == before
    assert len(await operator_acts(database)) == 1


@pytest.mark.guarantee("G32")
async def test_purge_removes_sent_and_skipped_rows_only(database: Database) -> None:
    await put_in_order(database, "domain-events", "a", "b")
    await mark_sent(database, 1)
    await delay_row(database, 2)
    await fail_rows(database, 4, 5)
    async with database.connection() as connection:
        await skip(connection, Selection(seqs=[4]), by="ann", reason="test")
        found = await preview(connection, Action.PURGE, EVERY, rows_max=1)
        assert ([row.seq for row in found.rows], found.rows_total) == ([1], 2)
        with pytest.raises(SelectionEmpty):
            await purge(connection, Selection(seqs=[2, 3, 5]), by="ann")
        assert await purge(connection, Selection(older_than_s=3_600), by="ann") == 0
        assert await purge(connection, EVERY, by="ann", reason="room") == 2
    assert [row["seq"] for row in await rows_of(database)] == [2, 3, 5, 6]
    target = (await operator_acts(database))[-1]["target"]
    assert (target["count"], target["seq_min"], target["seq_max"]) == (2, 1, 4)
    assert [row["seq"] for row in target["rows"]] == [4]  # the only record of its gap


@pytest.mark.guarantee("G32")
@pytest.mark.parametrize("act", list(Action))
async def test_action_without_record_is_rolled_back(
    database: Database, superuser: asyncpg.Connection, act: Action
) -> None:
    await put_in_order(database, "domain-events", "a")
    await mark_sent(database, 1)
    await fail_rows(database, 2)
    await superuser.execute("ALTER TABLE operator_acts ADD CONSTRAINT full_disk CHECK (actor <> 'ann')")
    before = await rows_of(database)
    acts = {
        Action.RETRY: lambda db: retry(db, EVERY, by="ann"),
        Action.SKIP: lambda db: skip(db, EVERY, by="ann", reason="test"),
        Action.PURGE: lambda db: purge(db, EVERY, by="ann"),
    }
    async with database.connection() as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await acts[act](connection)
    assert await rows_of(database) == before


async def test_action_rolls_back_with_the_callers_transaction(database: Database) -> None:
    await put_in_order(database, "domain-events", "a")
    await fail_rows(database, 1)
    async with database.sessions() as db:
        assert await retry(executor_of(db), EVERY, by="ann") == 1
        await db.rollback()
    assert (await states_of(database))[0] == ("FAILED", False)
    assert await operator_acts(database) == []


@pytest.mark.guarantee("G32")
async def test_concurrent_operators_change_each_row_once(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await put_in_order(database, "domain-events", "a")
    await fail_rows(database, 1, 2)

    async def is_waiting() -> bool:
        waiting = (
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(await superuser.fetch(waiting))

    async with database.sessions() as first, database.connection() as second:
        assert await retry(executor_of(first), Selection(seqs=[1]), by="ann") == 1
        late = asyncio.create_task(retry(second, EVERY, by="ben"))
        await eventually("the second operator waits for the first", is_waiting)
        await first.commit()
        assert await late == 1
    acts = [
        (act["actor"], [row["seq"] for row in act["target"]["rows"]]) for act in await operator_acts(database)
    ]
    assert acts == [("ann", [1]), ("ben", [2])]


@pytest.mark.parametrize("act", [Action.RETRY, Action.SKIP])
async def test_actions_on_many_rows_use_bounded_statements(
    database: Database, monkeypatch: pytest.MonkeyPatch, act: Action
) -> None:
    monkeypatch.setattr("relaybox.operations._actions._STATEMENT_ROWS_MAX", 2)
    await put_in_order(database, "domain-events", "a", "b", count=4)
    await fail_rows(database, 1, 2, 3, 5, 7)
    async with database.connection() as connection:
        if act is Action.RETRY:
            assert await retry(connection, EVERY, by="ann") == 5
        else:
            assert await skip(connection, EVERY, by="ann", reason="test") == 5
        acts = await list_actions(connection, actions_max=10)
    assert [[row["seq"] for row in one.target["rows"]] for one in acts] == [[7], [3, 5], [1, 2]]


async def test_preview_counts_rows_and_changes_nothing(database: Database) -> None:
    await put_in_order(database, "domain-events", "a", "b")
    await fail_rows(database, 1, 2, 4)
    before = await rows_of(database)
    async with database.connection() as connection:
        found = await preview(connection, Action.RETRY, EVERY, rows_max=2)
        nothing = await preview(connection, Action.RETRY, Selection(keys=["c"]), rows_max=2)
        with pytest.raises(SelectionEmpty):
            await preview(connection, Action.RETRY, Selection(seqs=[3]), rows_max=2)
    assert ([row.seq for row in found.rows], found.rows_total, found.rows_behind_another) == ([1, 2], 3, 0)
    assert nothing.rows_total == 0
    assert await rows_of(database) == before
    assert await operator_acts(database) == []
