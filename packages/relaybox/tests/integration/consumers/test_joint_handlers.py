"""A subscription may handle the events that share a transaction in one call."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from relaybox.consumers import Consumer, ConsumerSignal, EventTransaction, Subscription, subscribe
from relaybox.db import Database
from relaybox.settings import KafkaSettings
from relaybox_types.envelope import EventEnvelope

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.events import REQUESTED, effects, make_event, publish, record_effect

EVENTS = 11


class Joint:
    """Handles the first event alone, when the others wait in the consumer; joint calls may fail."""

    def __init__(self, *, fails: bool) -> None:
        self.consumer: asyncio.Future[Consumer] = asyncio.get_running_loop().create_future()
        self.calls: list[int] = []
        self._fails = fails

    async def one(self, event: EventEnvelope, unit: EventTransaction) -> None:
        consumer = await self.consumer
        async with asyncio.timeout(WAIT_S):
            while not self.calls and consumer.statistics().buffered < EVENTS:  # noqa: ASYNC110 - no signal of it
                await asyncio.sleep(0.01)
        self.calls.append(1)
        await record_effect(event, unit)

    async def several(self, units: Sequence[EventTransaction]) -> None:
        self.calls.append(len(units))
        for unit in units:
            await record_effect(unit.event, unit)
        if self._fails:
            raise RuntimeError("the last event cannot be handled")

    def subscription(self, group: str) -> Subscription:
        alone = subscribe(REQUESTED, group=group, transaction_events_max=50)(self.one)
        return replace(alone, joint_handler=self.several)


@pytest.mark.guarantee("G40")
@pytest.mark.parametrize("fails", [False, True])
async def test_joint_handler_gets_events_once_or_each_is_tried_alone(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer, *, fails: bool
) -> None:
    events = [make_event() for _ in range(EVENTS)]
    joint = Joint(fails=fails)
    async with start_consumer(joint.subscription(group), concurrency=1) as running:
        joint.consumer.set_result(running.consumer)
        publish(kafka_settings, topic, events)
        await running.signals.wait_for(ConsumerSignal.COMMITTED, EVENTS)
    assert sorted(await effects(database)) == sorted(event.event_id for event in events)
    assert max(joint.calls) > 1
    assert joint.calls.count(1) == (EVENTS if fails else EVENTS - sum(n for n in joint.calls if n > 1))
