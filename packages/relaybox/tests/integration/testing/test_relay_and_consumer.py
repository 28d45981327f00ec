"""The relay, the consumer and the handlers that a test steps."""

from typing import Any

import pytest
from relaybox.consumers import Subscription, subscribe
from relaybox.db import Database
from relaybox.settings import PostgresSettings
from relaybox.testing import (
    HandlerRunner,
    SteppedConsumers,
    SteppedRelay,
    make_event,
)

from tests.fixtures.events import effects, make_effects_table, record_effect

OPENED = "Bank.Account.Opened"


@pytest.fixture
async def effects_table(relaybox_postgres_settings: PostgresSettings) -> None:
    await make_effects_table(relaybox_postgres_settings)


def projection(handler: Any = record_effect, **options: Any) -> Subscription:
    return subscribe(OPENED, group="projection", **options)(handler)


async def test_run_handler_has_an_effect_once(
    relaybox_database: Database, run_handler: HandlerRunner, effects_table: None
) -> None:
    event = make_event(OPENED)
    outcomes = [await run_handler(projection(), event) for _ in range(2)]
    assert outcomes == ["HANDLED", "ALREADY_DONE"]
    assert await effects(relaybox_database) == [event.event_id]


async def test_consumer_steps_through_published_messages(
    relaybox_database: Database,
    relaybox_relay: SteppedRelay,
    relaybox_consumer: SteppedConsumers,
    effects_table: None,
) -> None:
    first, second = make_event(OPENED), make_event(OPENED)
    assert await relaybox_relay.publish(first) == 1
    consumer = relaybox_consumer(projection())
    step = await consumer.step()
    assert (step.outcome, step.key, step.event_type) == ("HANDLED", first.aggregate_id, OPENED)
    assert await consumer.step() is None
    await relaybox_relay.publish(second)
    assert [one.outcome for one in await consumer.drain()] == ["HANDLED"]
    assert await effects(relaybox_database) == [first.event_id, second.event_id]
