"""Handlers and consumers that a test steps, on the messages of a real topic."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from relaybox.consumers import (
    EventTransaction,
    HandlerFailed,
    HandlerTimedOut,
    KeyBlocked,
    ProcessedMessage,
    Subscription,
    SubscriptionInvalid,
    subscribe,
)
from relaybox.db import Database, DatabaseUnavailable
from relaybox.events import EventType
from relaybox.operations import LetterReason, LetterSelection, replay_letters
from relaybox.settings import KafkaSettings
from relaybox.testing import HandlerRunner, SteppedConsumers, SteppedRelay, make_event
from relaybox_types.envelope import EventEnvelope

from tests.fixtures.events import effects, publish_raw, record_effect

OPENED = "Bank.Account.Opened"
TOPIC = "domain-events"

pytestmark = pytest.mark.usefixtures("effects_table")


class Overdrawn(Exception):
    """The handler of the tests refuses an event."""


class Handler:
    """Record an effect, or fail, as often as the test wants."""

    def __init__(self, *, failures: int = 0, error: BaseException | None = None) -> None:
        self.failures = failures
        self.error = error or Overdrawn("balance below 0")
        self.payloads: list[dict[str, Any]] = []

    async def __call__(self, event: EventEnvelope, unit: EventTransaction) -> None:
        self.payloads.append(event.payload)
        await record_effect(event, unit)
        if self.failures > 0:
            self.failures -= 1
            raise self.error


def declared(handler: Handler, *types: str | EventType, **options: Any) -> Subscription:
    return subscribe(*(types or (OPENED,)), group="projection", **options)(handler)


def outcomes(processed: Sequence[ProcessedMessage]) -> list[str]:
    return [one.outcome for one in processed]


async def test_run_handler_has_one_effect(relaybox_database: Database, run_handler: HandlerRunner) -> None:
    event = make_event(OPENED)
    subscription = declared(Handler())
    assert [await run_handler(subscription, event) for _ in range(2)] == ["HANDLED", "ALREADY_DONE"]
    assert await effects(relaybox_database) == [event.event_id]


async def test_run_handler_raises_the_error_and_rolls_back(
    relaybox_database: Database, run_handler: HandlerRunner
) -> None:
    event = make_event(OPENED)
    subscription = declared(Handler(failures=1))
    with pytest.raises(Overdrawn, match="balance below 0"):
        await run_handler(subscription, event)
    assert await effects(relaybox_database) == []
    assert await run_handler(subscription, event) == "HANDLED"


async def test_run_handler_refuses_another_type(run_handler: HandlerRunner) -> None:
    with pytest.raises(SubscriptionInvalid, match=r"subscribes to Bank\.Account\.Opened, not to Bank"):
        await run_handler(declared(Handler()), make_event("Bank.Account.Closed"))


async def test_run_handler_brings_the_payload_to_the_declared_version(run_handler: HandlerRunner) -> None:
    current = EventType(OPENED, version=2, upcast={1: lambda payload: {"owner": payload["name"]}})
    handler = Handler()
    old = make_event(OPENED, {"name": "ann"}, event_version=1)
    assert await run_handler(declared(handler, current), old) == "HANDLED"
    assert await run_handler(declared(handler, current), make_event(current, {"owner": "bob"})) == "HANDLED"
    assert handler.payloads == [{"owner": "ann"}, {"owner": "bob"}]


async def test_consumer_processes_one_message_per_step(
    relaybox_database: Database, relaybox_relay: SteppedRelay, relaybox_consumer: SteppedConsumers
) -> None:
    first, second = make_event(OPENED), make_event(OPENED)
    consumer = relaybox_consumer(declared(Handler()))
    assert await consumer.step() is None
    assert await relaybox_relay.publish(first) == 1
    await relaybox_relay.publish(make_event("Bank.Account.Closed"), second)
    step = await consumer.step()
    assert step is not None
    assert (step.outcome, step.key, step.event_type, step.topic) == (
        "HANDLED",
        first.aggregate_id,
        OPENED,
        TOPIC,
    )
    assert await effects(relaybox_database) == [first.event_id]
    assert sorted(outcomes(await consumer.drain())) == ["HANDLED", "SKIPPED"]
    assert await effects(relaybox_database) == [first.event_id, second.event_id]


async def test_rewound_consumer_has_no_second_effect(
    relaybox_database: Database, relaybox_relay: SteppedRelay, relaybox_consumer: SteppedConsumers
) -> None:
    event = make_event(OPENED)
    await relaybox_relay.publish(event)
    consumer = relaybox_consumer(declared(Handler()))
    assert outcomes(await consumer.drain()) == ["HANDLED"]
    consumer.rewind()
    assert outcomes(await consumer.drain()) == ["ALREADY_DONE"]
    assert await effects(relaybox_database) == [event.event_id]


async def test_failing_handler_succeeds_at_the_fourth_attempt(
    relaybox_database: Database, relaybox_relay: SteppedRelay, relaybox_consumer: SteppedConsumers
) -> None:
    event = make_event(OPENED)
    await relaybox_relay.publish(event)
    [processed] = await relaybox_consumer(declared(Handler(failures=3))).drain()
    assert (processed.outcome, processed.attempts, processed.failure) == ("HANDLED", 3, None)
    assert await effects(relaybox_database) == [event.event_id]


async def test_letters_are_parked_in_order_and_replayed_on_request(
    relaybox_database: Database, relaybox_relay: SteppedRelay, relaybox_consumer: SteppedConsumers
) -> None:
    bad, behind = (make_event(OPENED, aggregate_id="a", version=version) for version in (1, 2))
    await relaybox_relay.publish(bad, behind)
    handler = Handler(failures=4)
    consumer = relaybox_consumer(declared(handler))
    parked, blocked = await consumer.drain()
    assert (parked.outcome, parked.attempts) == ("PARKED", 4)
    assert (blocked.outcome, blocked.attempts) == ("PARKED", 0)
    assert isinstance(parked.failure, Overdrawn)
    assert isinstance(blocked.failure, KeyBlocked)
    assert "Overdrawn('balance below 0')" in repr(parked)
    first, second = await consumer.letters()
    assert (first.reason, second.reason) == (LetterReason.HANDLER_FAILED, LetterReason.BLOCKED)
    assert await effects(relaybox_database) == []

    handler.failures = 4
    await replay_letters(relaybox_database, LetterSelection(ids=[first.id]), by="ann", reason="test")
    [failed] = await consumer.drain()
    assert (failed.outcome, failed.attempts, failed.key) == ("REPLAY_FAILED", 4, "a")
    await replay_letters(relaybox_database, LetterSelection(ids=[first.id]), by="ann", reason="repaired")
    assert outcomes(await consumer.drain()) == ["REPLAYED", "REPLAYED"]
    assert await consumer.letters() == []
    assert await effects(relaybox_database) == [bad.event_id, behind.event_id]


async def test_message_that_is_no_event_is_parked(
    relaybox_kafka_settings: KafkaSettings, relaybox_consumer: SteppedConsumers
) -> None:
    consumer = relaybox_consumer(declared(Handler()))
    publish_raw(relaybox_kafka_settings, TOPIC, [("a", b"not JSON", None)])
    [processed] = await consumer.drain()
    assert (processed.outcome, processed.attempts, processed.event_type) == ("PARKED", 1, None)
    [letter] = await consumer.letters()
    assert letter.reason is LetterReason.ENVELOPE_INVALID


async def test_consumer_stops_before_an_event_whose_handlers_stop(
    relaybox_database: Database, relaybox_relay: SteppedRelay, relaybox_consumer: SteppedConsumers
) -> None:
    await relaybox_relay.publish(make_event(OPENED))
    consumer = relaybox_consumer(declared(Handler(failures=5), on_failure="stop"))
    with pytest.raises(HandlerFailed, match="failed 4 times") as raised:
        await consumer.drain()
    assert isinstance(raised.value.__cause__, Overdrawn)
    # The event is the next one after the repair.
    assert outcomes(await consumer.drain()) == ["HANDLED"]


async def test_database_error_is_raised_instead_of_waiting(
    relaybox_relay: SteppedRelay, relaybox_consumer: SteppedConsumers
) -> None:
    await relaybox_relay.publish(make_event(OPENED))
    handler = Handler(failures=1, error=DatabaseUnavailable("no server"))
    consumer = relaybox_consumer(declared(handler))
    with pytest.raises(DatabaseUnavailable):
        await consumer.step()
    assert outcomes(await consumer.drain()) == ["HANDLED"]


async def test_handler_that_hangs_is_parked(
    relaybox_relay: SteppedRelay, relaybox_consumer: SteppedConsumers
) -> None:
    async def hang(event: EventEnvelope, unit: EventTransaction) -> None:
        await asyncio.Event().wait()

    await relaybox_relay.publish(make_event(OPENED))
    subscription = subscribe(OPENED, group="projection", handler_timeout_s=0.01)(hang)
    [processed] = await relaybox_consumer(subscription).drain()
    assert processed.outcome == "PARKED"
    assert isinstance(processed.failure, HandlerTimedOut)


async def test_consumer_reads_the_topics_that_the_test_names(
    relaybox_kafka_settings: KafkaSettings,
    make_topic: Any,
    relaybox_consumer: SteppedConsumers,
) -> None:
    topic = make_topic()
    event = make_event(OPENED)
    publish_raw(relaybox_kafka_settings, topic, [("a", event.model_dump_json().encode(), OPENED)])
    assert outcomes(await relaybox_consumer(declared(Handler()), topics=[topic]).drain()) == ["HANDLED"]
    assert await relaybox_consumer(declared(Handler())).drain() == []
