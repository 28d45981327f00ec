"""Requests to park a message, on a real Kafka and PostgreSQL."""

import asyncio
from uuid import uuid4

import pytest
from relaybox.consumers import Consumer, ConsumerSignal, EventTransaction, subscribe
from relaybox.db import Database
from relaybox.kafka import partition_of
from relaybox.operations import (
    GroupUnknown,
    MessagePlace,
    MessageToPark,
    ParkingRefused,
    list_actions,
    preview_parking,
    request_parking,
)
from relaybox.settings import KafkaSettings, PostgresSettings
from relaybox_types.envelope import EventEnvelope

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.events import REQUESTED, effects, make_effects_table, make_event, publish, record_effect
from tests.fixtures.groups import commit_offsets
from tests.fixtures.letters import letter_rows
from tests.fixtures.signal_recorder import SignalRecorder


@pytest.fixture
def group() -> str:
    return f"group-{uuid4().hex[:8]}"


async def preview(database: Database, kafka: KafkaSettings, place: MessagePlace) -> MessageToPark:
    async with database.connection() as connection:
        return await preview_parking(connection, kafka, place)


@pytest.mark.guarantee("G41")
async def test_running_consumer_parks_a_message_on_request(
    database: Database,
    postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    topic: str,
    group: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", (0.01,) * 100_000)
    await make_effects_table(postgres_settings)

    async def handle(event: EventEnvelope, unit: EventTransaction) -> None:
        await record_effect(event, unit)
        if event.version == 2:
            raise ValueError("never successful")

    signals = SignalRecorder()
    stops = subscribe(REQUESTED, group=group, on_failure="stop")(handle)
    consumer = Consumer(database, kafka_settings, [stops], topics=[topic], on_signal=signals)
    work = asyncio.create_task(consumer.run())
    await signals.wait_for(ConsumerSignal.ASSIGNED)
    events = [make_event(aggregate_id="a", version=version) for version in (1, 2, 3)]
    publish(kafka_settings, topic, events)
    await signals.wait_for(ConsumerSignal.RETRYING)
    place = MessagePlace(group=group, topic=topic, partition=partition_of("a", 4), offset=1)
    done = await request_parking(database, kafka_settings, place, by="ann", reason="INC-18")
    assert (done.key, done.event_type, done.requested_by) == ("a", REQUESTED, None)
    await signals.wait_for(ConsumerSignal.PARKED, 2)
    consumer.stop()
    await asyncio.wait_for(work, WAIT_S)

    letters = [(row["error_code"], row["error"]) for row in await letter_rows(database)]
    assert letters[0] == ("PARKED_BY_OPERATOR", "ParkedByOperator: parked at the request of ann: INC-18")
    assert letters[1][0] == "KEY_BLOCKED"
    assert await effects(database) == [events[0].event_id]
    with pytest.raises(ParkingRefused, match="is already dead letter"):
        await preview(database, kafka_settings, place)


async def test_parking_requests_name_an_unfinished_message(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str
) -> None:
    publish(kafka_settings, topic, [make_event(aggregate_id=key) for key in "abcdefgh"])
    commit_offsets(kafka_settings, group, topic, {0: 1})
    for name, partition, offset, refused, why in (
        (group, 0, 0, ParkingRefused, "has passed"),
        (group, 0, 4711, ParkingRefused, "Kafka has no message"),
        (group, 99, 0, ParkingRefused, "no partition 99"),
        ("unknown", 0, 0, GroupUnknown, "no consumer group 'unknown'"),
    ):
        place = MessagePlace(group=name, topic=topic, partition=partition, offset=offset)
        with pytest.raises(refused, match=why):
            await request_parking(database, kafka_settings, place, by="ann", reason="test")


@pytest.mark.parametrize("name", ["", "bad topic!", "..", "x" * 250])
async def test_parking_refuses_a_name_that_no_topic_can_have(
    database: Database, kafka_settings: KafkaSettings, group: str, name: str
) -> None:
    place = MessagePlace(group=group, topic=name, partition=0, offset=0)
    with pytest.raises(ParkingRefused, match="is not a topic name"):
        await request_parking(database, kafka_settings, place, by="ann", reason="test")


async def test_parking_is_requested_once_and_recorded(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str
) -> None:
    publish(kafka_settings, topic, [make_event(aggregate_id=key) for key in "abcdefgh"])
    commit_offsets(kafka_settings, group, topic, {0: 0})
    place = MessagePlace(group=group, topic=topic, partition=0, offset=0)
    await request_parking(database, kafka_settings, place, by="ann", reason="INC-18")
    again = await request_parking(database, kafka_settings, place, by="bob", reason="INC-19")
    assert again.requested_by == "ann"
    async with database.connection() as connection:
        [act] = await list_actions(connection, actions_max=10)
    assert (act.actor, act.act, act.reason, act.target["offset"]) == ("ann", "park", "INC-18", 0)
