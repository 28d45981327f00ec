"""A consumer at work, whose moments a test can wait for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import uuid4

import pytest
from relaybox.consumers import Consumer, ConsumerMoment, Handler, Subscription, subscribe
from relaybox.db import Database
from relaybox.settings import KafkaSettings, PostgresSettings

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.events import REQUESTED, make_effects_table
from tests.fixtures.moments import Moments


class Running:
    """A consumer at work and what it announced."""

    def __init__(self, consumer: Consumer, moments: Moments) -> None:
        self.consumer, self.moments = consumer, moments
        self.work = asyncio.create_task(consumer.run())

    async def ended(self) -> None:
        """Return, or raise, as ``run()`` does."""
        await asyncio.wait_for(asyncio.shield(self.work), WAIT_S)

    async def stopped(self) -> None:
        self.consumer.stop()
        await self.ended()


StartConsumer = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
async def effects_table(postgres_settings: PostgresSettings) -> None:
    await make_effects_table(postgres_settings)


@pytest.fixture
def group() -> str:
    return f"group-{uuid4().hex[:8]}"


@pytest.fixture
def start_consumer(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, effects_table: None
) -> StartConsumer:
    """``async with start_consumer(handler) as running``; assigned on entry, stopped on exit."""

    @asynccontextmanager
    async def start(
        handler: Handler | Subscription,
        *,
        group: str = group,
        settings: KafkaSettings = kafka_settings,
        assigned: bool = True,
    ) -> AsyncIterator[Running]:
        declared = (
            handler if isinstance(handler, Subscription) else subscribe(REQUESTED, group=group)(handler)
        )
        moments = Moments()
        running = Running(
            Consumer(database, settings, [declared], topics=[topic], on_moment=moments), moments
        )
        try:
            if assigned:
                await moments.reached(ConsumerMoment.ASSIGNED)
            yield running
        finally:
            running.consumer.stop()
            await asyncio.wait([running.work], timeout=WAIT_S)

    return start
