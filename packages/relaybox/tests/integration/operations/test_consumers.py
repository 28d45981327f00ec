"""State and lag of consumer groups, on a real Kafka and PostgreSQL."""

import asyncio
from collections.abc import Callable
from uuid import uuid4

import pytest
from relaybox.consumers import ConsumerSignal, EventTransaction
from relaybox.db import Database
from relaybox.local import free_port
from relaybox.operations import (
    ConsumerLag,
    ConsumerStatus,
    GroupState,
    GroupUnknown,
    KafkaUnavailable,
    consumer_lag,
    consumer_status,
    list_consumers,
)
from relaybox.settings import KafkaSettings
from relaybox_types.envelope import EventEnvelope

from tests.fixtures.events import make_event, publish, record_effect
from tests.fixtures.groups import (
    commit_offsets,
    open_transaction,
    produce_aged,
    produce_in_transaction,
    running_group,
)
from tests.fixtures.letters import park_letters
from tests.fixtures.topic_records import delete_records
from tests.fixtures.waiting import eventually


@pytest.fixture
def group() -> str:
    return f"group-{uuid4().hex[:8]}"


class Gate:
    """A handler that waits until it is opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def __call__(self, event: EventEnvelope, unit: EventTransaction) -> None:
        await self.opened.wait()


async def status_of(database: Database, kafka: KafkaSettings, group: str) -> ConsumerStatus:
    async with database.connection() as connection:
        return await consumer_status(connection, kafka, group)


async def listed(database: Database, kafka: KafkaSettings) -> list[ConsumerStatus]:
    async with database.connection() as connection:
        return await list_consumers(connection, kafka)


def messages(lag: ConsumerLag) -> list[int | None]:
    return [each.messages for each in lag.partitions]


def codes(status: ConsumerStatus) -> list[str]:
    return [fault.code for fault in status.faults]


async def test_lag_of_a_running_consumer_agrees_with_its_metric(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str
) -> None:
    gate = Gate()
    async with running_group(database, kafka_settings, topic, group, gate) as (consumer, signals):
        publish(kafka_settings, topic, [make_event(aggregate_id="a") for _ in range(3)])

        async def measured() -> bool:
            return consumer.statistics().lag_messages == 3

        async def level() -> bool:
            return (await consumer_lag(kafka_settings, group)).messages == 0

        await eventually("the metric has the messages", measured)
        behind = await consumer_lag(kafka_settings, group)
        metric = consumer.statistics().lags
        assert {(each.topic, each.partition): each.messages for each in behind.partitions} == {
            (one.topic, one.partition): one.messages for one in metric
        }
        assert 0 < (behind.seconds or 0) <= max(one.seconds for one in metric)
        assert behind.messages == 3
        gate.opened.set()
        await signals.wait_for(ConsumerSignal.COMMITTED, 3)
        await eventually("the offsets are committed", level)


async def test_status_has_members_and_their_partitions(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str
) -> None:
    async with running_group(database, kafka_settings, topic, group, record_effect):
        status = await status_of(database, kafka_settings, group)
        lag = await consumer_lag(kafka_settings, group)
    [member] = status.members
    assert (member.client_id, dict(member.partitions)) == (f"relaybox-{group}", {topic: [0, 1, 2, 3]})
    assert {each.member for each in lag.partitions} == {member.member_id}
    assert (status.state, status.partitions, codes(status)) == (GroupState.STABLE, 4, [])
    status = await status_of(database, kafka_settings, group)
    assert (status.state, status.members, codes(status)) == (GroupState.EMPTY, (), ["CONSUMER_STOPPED"])


async def test_lag_has_messages_and_age_of_each_partition(
    kafka_settings: KafkaSettings, topic: str, group: str
) -> None:
    produce_aged(kafka_settings, topic, 0, [900, 600, 300])
    produce_aged(kafka_settings, topic, 1, [60])
    produce_aged(kafka_settings, topic, 2, [50, 40])
    commit_offsets(kafka_settings, group, topic, {0: 1, 1: 1})
    found = await consumer_lag(kafka_settings, group)
    assert messages(found) == [2, 0, 2, 0]  # without a committed offset, from the first message
    assert [each.committed for each in found.partitions] == [1, 1, None, None]
    assert [each.end for each in found.partitions] == [3, 1, 2, 0]
    ages = [each.seconds for each in found.partitions]
    assert [age and age // 10 for age in ages] == [60, 0, 5, 0]
    assert (found.messages, found.seconds, found.ages_missing) == (4, ages[0], None)


async def test_markers_of_transactions_are_no_lag_of_a_group(
    kafka_settings: KafkaSettings, make_topic: Callable[..., str], group: str
) -> None:
    topic = make_topic(partitions=1)
    await asyncio.to_thread(produce_in_transaction, kafka_settings, topic, messages=2)
    commit_offsets(kafka_settings, group, topic, {0: 2})
    [position] = (await consumer_lag(kafka_settings, group)).partitions
    assert (position.end, position.messages, position.seconds) == (3, 0, 0)
    # The marker before a message is no part of the lag; the marker behind it is, as in the metric.
    await asyncio.to_thread(produce_in_transaction, kafka_settings, topic)
    [position] = (await consumer_lag(kafka_settings, group)).partitions
    assert (position.end, position.messages) == (5, 2)


async def test_messages_of_an_open_transaction_are_no_lag(
    kafka_settings: KafkaSettings, make_topic: Callable[..., str], group: str
) -> None:
    topic = make_topic(partitions=1)
    produce_aged(kafka_settings, topic, 0, [60])
    commit_offsets(kafka_settings, group, topic, {0: 0})
    with await asyncio.to_thread(open_transaction, kafka_settings, topic):
        [position] = (await consumer_lag(kafka_settings, group)).partitions
    assert (position.end, position.messages) == (1, 1)


async def test_status_names_messages_removed_before_they_were_read(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str
) -> None:
    produce_aged(kafka_settings, topic, 0, [4, 3, 2, 1])
    commit_offsets(kafka_settings, group, topic, {0: 1})
    delete_records(kafka_settings, topic, {0: 3})
    found = await consumer_lag(kafka_settings, group)
    assert (found.partitions[0].removed, found.messages) == (2, 1)
    status = await status_of(database, kafka_settings, group)
    assert codes(status) == ["MESSAGES_REMOVED", "CONSUMER_STOPPED"]
    assert f"2 offsets of {topic}/0" in status.faults[0].what


@pytest.mark.guarantee("G41")
async def test_status_counts_letters_and_blocked_keys(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str
) -> None:
    commit_offsets(kafka_settings, group, topic, {0: 0})
    await park_letters(database, "a", count=3, group=group)
    await park_letters(database, "b", group=group)
    await park_letters(database, "a", group="another")
    status = await status_of(database, kafka_settings, group)
    assert (status.letters, status.keys_blocked) == (4, 2)
    assert codes(status) == ["CONSUMER_STOPPED", "DEAD_LETTERS"]
    assert f"relaybox dead-letters list --group {group}" in status.faults[1].remedy


async def test_list_has_the_groups_of_the_database_only(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str
) -> None:
    assert await listed(database, kafka_settings) == []
    for name in (group, f"foreign-{group}"):
        commit_offsets(kafka_settings, name, topic, {0: 0})
    async with database.connection() as connection:
        await connection.fetch("INSERT INTO consumed_events VALUES ($1, gen_random_uuid())", group)
    await park_letters(database, "a", group=f"parked-{group}")
    found = await listed(database, kafka_settings)
    assert [(each.group, each.state, each.letters) for each in found] == [
        (group, GroupState.EMPTY, 0),
        (f"parked-{group}", GroupState.ABSENT, 1),
    ]
    assert codes(found[1]) == ["CONSUMER_ABSENT", "DEAD_LETTERS"]


async def test_unread_ages_are_reported_as_unknown(
    kafka_settings: KafkaSettings, topic: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.operations._consumers._AGES_MAX", 1)
    for partition in (0, 1):
        produce_aged(kafka_settings, topic, partition, [60])
    commit_offsets(kafka_settings, group, topic, {0: 0})
    found = await consumer_lag(kafka_settings, group)
    assert (messages(found), found.messages) == ([1, 1, 0, 0], 2)
    assert [each.seconds is None for each in found.partitions] == [False, True, False, False]
    assert found.seconds is not None
    assert found.ages_missing == "only 1 of 2 partitions with a lag are read"


@pytest.mark.parametrize("name", ["no-such-group", ""])
async def test_unknown_group_is_refused(database: Database, kafka_settings: KafkaSettings, name: str) -> None:
    with pytest.raises(GroupUnknown, match=f"no consumer group '{name}'"):
        await consumer_lag(kafka_settings, name)
    with pytest.raises(GroupUnknown, match=f"no consumer group '{name}'"):
        await status_of(database, kafka_settings, name)


async def test_group_without_a_broker_is_refused(
    database: Database, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.operations._group_reader._RESPONSE_S", 1.0)
    away = KafkaSettings(host="127.0.0.1", port=free_port())
    with pytest.raises(KafkaUnavailable, match=f"at 127.0.0.1:{away.port}: .*; check KAFKA_HOST"):
        await consumer_lag(away, group)
    with pytest.raises(KafkaUnavailable):
        await status_of(database, away, group)
