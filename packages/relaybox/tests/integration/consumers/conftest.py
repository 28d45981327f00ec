"""A consumer at work, whose signals a test can wait for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from relaybox.consumers import Consumer, ConsumerSignal, Handler, Subscription, subscribe
from relaybox.db import Database
from relaybox.settings import KafkaSettings, PostgresSettings

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.events import REQUESTED, make_effects_table
from tests.fixtures.signal_recorder import SignalRecorder


class Running:
    """A consumer at work and what it announced."""

    def __init__(self, consumer: Consumer, signals: SignalRecorder) -> None:
        self.consumer, self.signals = consumer, signals
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
        **options: Any,
    ) -> AsyncIterator[Running]:
        declared = (
            handler if isinstance(handler, Subscription) else subscribe(REQUESTED, group=group)(handler)
        )
        signals = SignalRecorder()
        running = Running(
            Consumer(database, settings, [declared], topics=[topic], on_signal=signals, **options), signals
        )
        try:
            if assigned:
                await signals.wait_for(ConsumerSignal.ASSIGNED)
            yield running
        finally:
            running.consumer.stop()
            await asyncio.wait([running.work], timeout=WAIT_S)

    return start
