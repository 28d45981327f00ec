"""Consumers find the message whose handler ends the process; the process of these tests does not end."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest
from relaybox.consumers import ConsumerSignal, EventTransaction, HandlerEndedProcess, subscribe
from relaybox.consumers._crash_watch import CrashWatch
from relaybox.consumers._key_queue import Replay, RequestedReplays
from relaybox.consumers._message import Message
from relaybox.db import Database, executor_of
from relaybox.kafka import partition_of
from relaybox.settings import KafkaSettings
from relaybox_types.envelope import EventEnvelope

from tests.fixtures.events import REQUESTED, effects, make_event, publish, record_effect
from tests.fixtures.letters import letter_rows, park_letters
from tests.fixtures.waiting import eventually

_PARTITIONS = 4


async def record_crash(database: Database, group: str, topic: str, *, partitions: int = _PARTITIONS) -> None:
    """Record partitions as a process does that then ends without stopping."""
    async with database.connection() as connection:
        await connection.fetch(
            "INSERT INTO consumer_partitions SELECT $1, $2, number, $3 "
            "FROM generate_series(0, $4 - 1) AS number",
            group,
            topic,
            uuid4(),
            partitions,
        )


async def record_crashes_in_handler(
    database: Database, group: str, topic: str, event: EventEnvelope, *, processes: int
) -> None:
    """Record that *processes* processes ended in the handler of *event*, the first of its partition."""
    await record_crash(database, group, topic)
    async with database.connection() as connection:
        await connection.fetch(
            "INSERT INTO watched_messages VALUES ($1, $2, $3::int, 0, 0, $4, $5::int - 1)",
            group,
            topic,
            partition_of(event.aggregate_id, _PARTITIONS),
            uuid4(),
            processes,
        )


def requested(topic: str, *replays: Replay) -> RequestedReplays:
    """Return the result of a search in partition 0."""
    return RequestedReplays(partition=(topic, 0), replays=replays, next_start=b"")


async def watched(database: Database) -> list[Mapping[str, Any]]:
    async with database.connection() as connection:
        return [dict(row) for row in await connection.fetch("SELECT * FROM watched_messages")]


async def read_partitions(database: Database) -> list[Any]:
    async with database.connection() as connection:
        return list(await connection.fetch("SELECT * FROM consumer_partitions"))


@pytest.mark.guarantee("G41")
async def test_message_in_whose_handler_three_processes_ended_is_parked(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    poison, follower = (make_event(aggregate_id="a", version=version) for version in (1, 2))
    other = make_event(aggregate_id="b")
    await record_crashes_in_handler(database, group, topic, poison, processes=3)
    publish(kafka_settings, topic, [poison, follower, other])
    async with start_consumer(record_effect) as running:
        await running.signals.wait_for(ConsumerSignal.PARKED, 2)
        await running.signals.wait_for(ConsumerSignal.COMMITTED)
    assert await effects(database) == [other.event_id]
    letters = await letter_rows(database)
    assert [(row["event_id"], row["error_code"], row["attempts"]) for row in letters] == [
        (poison.event_id, "HANDLER_ENDED_PROCESS", 3),
        (follower.event_id, "KEY_BLOCKED", 0),
    ]
    assert letters[0]["error"].startswith("HandlerEndedProcess: at least 3 processes ended")


@pytest.mark.guarantee("G41")
async def test_message_in_whose_handler_two_processes_ended_gets_another_attempt(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    event = make_event(aggregate_id="a")
    await record_crashes_in_handler(database, group, topic, event, processes=2)
    publish(kafka_settings, topic, [event])
    async with start_consumer(record_effect) as running:
        await running.signals.wait_for(ConsumerSignal.COMMITTED)
    assert await effects(database) == [event.event_id]


@pytest.mark.guarantee("G41")
async def test_consumer_that_stops_leaves_no_sign_of_a_crash(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    async with start_consumer(record_effect) as running:
        assert len(await read_partitions(database)) == _PARTITIONS
        await running.stopped()
    assert await read_partitions(database) == []


@pytest.mark.guarantee("G41")
async def test_watched_consumer_that_stops_lets_the_next_one_watch(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    """It stops during a handler, which does not count as the end of a process."""
    called = asyncio.Event()

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        called.set()
        await asyncio.Event().wait()

    event = make_event(aggregate_id="a")
    await record_crashes_in_handler(database, group, topic, event, processes=2)
    publish(kafka_settings, topic, [event])
    async with start_consumer(handler) as running:
        await called.wait()
        [before] = await watched(database)
        assert (before["process"] is None, before["processes_ended"]) == (False, 2)
        await running.stopped()
    [after] = await watched(database)
    assert (after["process"], after["processes_ended"]) == (None, 2)
    left = [row["partition"] for row in await read_partitions(database)]
    assert partition_of("a", _PARTITIONS) in left


@pytest.mark.guarantee("G41")
async def test_watch_ends_when_all_messages_are_finished(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    """Otherwise partitions without new messages would make the consumer slow for ever."""
    await record_crash(database, group, topic)
    publish(kafka_settings, topic, [make_event(aggregate_id="a")])
    async with start_consumer(record_effect) as running:
        await running.signals.wait_for(ConsumerSignal.COMMITTED)
        watch = running.consumer._processor.crash_watch

        async def ended() -> bool:
            return not watch.is_watching

        await eventually("the end of the watch", ended)
        await running.stopped()
    assert await read_partitions(database) == []


@pytest.mark.guarantee("G41")
async def test_messages_of_other_partitions_do_not_end_the_watch(
    database: Database, topic: str, group: str
) -> None:
    watch = CrashWatch(database, group, messages=2, letters=1)
    await record_crash(database, group, topic)
    await watch.open([(topic, 0)])
    watch.expect(requested(topic))
    for offset in range(3):
        watch.finished(Message(partition=(topic, 1), offset=offset, value=b""))
    watch.finished(Message(partition=(topic, 0), offset=0, value=b""))
    watch.finished(Message(partition=(topic, 0), offset=1, value=b""), handled=False)
    assert watch.is_watching
    watch.finished(Message(partition=(topic, 0), offset=2, value=b""))
    assert not watch.is_watching


@pytest.mark.guarantee("G41")
async def test_replay_found_after_other_messages_is_watched(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    group: str,
    start_consumer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many messages are finished before the search for replays as the crashed process may have begun."""
    monkeypatch.setattr("relaybox.consumers._consumer._REQUESTS_S", 3_600.0)
    [letter_id] = await park_letters(database, "poison", group=group)
    await record_crash(database, group, topic, partitions=1)
    async with database.connection() as connection:
        await connection.fetch("UPDATE dead_letters SET topic = $1, status = 'REPLAY_REQUESTED'", topic)
        await connection.fetch(
            "INSERT INTO watched_messages VALUES ($1, $2, 0, 0, $3, $4, 2)", group, topic, letter_id, uuid4()
        )
    key = next(key for key in map(str, range(100)) if partition_of(key, _PARTITIONS) == 0)
    publish(kafka_settings, topic, [make_event(aggregate_id=key, version=version) for version in (1, 2)])
    async with start_consumer(record_effect, concurrency=1) as running:
        await running.signals.wait_for(ConsumerSignal.COMMITTED, 2)
        running.consumer._requests.wake()
        await running.signals.wait_for(ConsumerSignal.REPLAY_FAILED)
    [letter] = await letter_rows(database)
    assert (letter["status"], letter["error_code"]) == ("PARKED", "HANDLER_ENDED_PROCESS")


@pytest.mark.guarantee("G41")
async def test_watch_lasts_until_requested_replays_have_been_called(
    database: Database, topic: str, group: str
) -> None:
    watch = CrashWatch(database, group, messages=1, letters=2)
    await record_crash(database, group, topic)
    await watch.open([(topic, 0)])
    watch.finished(Message(partition=(topic, 0), offset=0, value=b""))
    keyed, failing = (Replay(partition=(topic, 0), key=key, letter_id=None) for key in (b"a", b"b"))
    single = Replay(partition=(topic, 0), key=None, letter_id=1)
    later = Replay(partition=(topic, 0), key=b"c", letter_id=None)
    watch.expect(requested(topic, keyed, failing, single))
    watch.expect(requested(topic, later))
    for replay, letters in ((keyed, 1), (single, 1), (failing, 0)):
        watch.replayed(replay, letters)
        assert watch.is_watching
    watch.replayed(keyed, 1)
    assert not watch.is_watching


@pytest.mark.guarantee("G41")
async def test_watch_lasts_while_a_failed_handler_is_retried(
    database: Database, topic: str, group: str
) -> None:
    """The next attempt may end the process."""
    watch = CrashWatch(database, group, messages=1, letters=1)
    await record_crash(database, group, topic)
    await watch.open([(topic, 0)])
    watch.expect(requested(topic))
    failed, other = (Message(partition=(topic, 0), offset=offset, value=b"") for offset in (0, 1))
    with pytest.raises(ValueError, match="failed"):
        async with watch.calling([failed]):
            raise ValueError("failed")
    watch.finished(other)
    assert watch.is_watching
    watch.finished(failed)
    assert not watch.is_watching


@pytest.mark.guarantee("G41")
async def test_handler_that_raises_does_not_count_as_end_of_a_process(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    group: str,
    start_consumer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is retried while other messages are handled, one of which may end the process."""
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", (3_600.0,))

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        raise ValueError

    await record_crash(database, group, topic)
    publish(kafka_settings, topic, [make_event(aggregate_id="a")])
    async with start_consumer(handler) as running:
        await running.signals.wait_for(ConsumerSignal.RETRYING)
        [row] = await watched(database)
    assert (row["process"], row["processes_ended"]) == (None, 0)


@pytest.mark.guarantee("G41")
async def test_handlers_are_called_one_at_a_time_after_a_crash(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    """Until as many are handled as the crashed process may have begun: two transactions of three events."""
    calls, transactions, running_calls = list[int](), list[str](), 0

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        nonlocal running_calls
        running_calls += 1
        calls.append(running_calls)
        [row] = await executor_of(unit.db).fetch("SELECT pg_current_xact_id()::text AS id, pg_sleep(0.01)")
        transactions.append(row["id"])
        running_calls -= 1

    await record_crash(database, group, topic)
    publish(kafka_settings, topic, [make_event(aggregate_id=str(key)) for key in range(8)])
    subscription = subscribe(REQUESTED, group=group, transaction_events_max=3)(handler)
    async with start_consumer(subscription, concurrency=2) as running:
        await running.signals.wait_for(ConsumerSignal.COMMITTED, 6)
    assert calls[:6] == [1] * 6
    assert len(set(transactions[:6])) == 6


@pytest.mark.guarantee("G41")
@pytest.mark.parametrize(("processes", "calls"), [(3, 1), (6, 0)])
async def test_on_parked_is_not_called_if_it_ends_the_process(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    group: str,
    start_consumer,
    processes: int,
    calls: int,
) -> None:
    parked: list[BaseException] = []

    async def on_parked(event: EventEnvelope, failure: BaseException, unit: EventTransaction) -> None:
        parked.append(failure)

    event = make_event(aggregate_id="a")
    await record_crashes_in_handler(database, group, topic, event, processes=processes)
    publish(kafka_settings, topic, [event])
    subscription = subscribe(REQUESTED, group=group, on_parked=on_parked)(record_effect)
    async with start_consumer(subscription) as running:
        await running.signals.wait_for(ConsumerSignal.PARKED)
    assert [type(failure) for failure in parked] == [HandlerEndedProcess] * calls


@pytest.mark.guarantee("G41")
async def test_consumer_with_on_failure_stop_ends_before_the_message(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    event = make_event(aggregate_id="a")
    await record_crashes_in_handler(database, group, topic, event, processes=3)
    publish(kafka_settings, topic, [event])
    subscription = subscribe(REQUESTED, group=group, on_failure="stop")(record_effect)
    async with start_consumer(subscription) as running:
        with pytest.raises(HandlerEndedProcess, match=r"at least 3 processes ended.*restart the consumer"):
            await running.ended()
    assert await effects(database) == []
    repaired = subscribe(REQUESTED, group=group, on_failure="stop")(record_effect)
    async with start_consumer(repaired) as running:
        await running.signals.wait_for(ConsumerSignal.COMMITTED)


@pytest.mark.guarantee("G41")
async def test_records_of_finished_messages_are_deleted(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    event = make_event(aggregate_id="a")
    await record_crashes_in_handler(database, group, topic, event, processes=1)
    publish(kafka_settings, topic, [event])
    async with start_consumer(record_effect) as running:
        await running.signals.wait_for(ConsumerSignal.COMMITTED)

        async def deleted() -> bool:
            return await watched(database) == []

        await eventually("the record deleted", deleted)
