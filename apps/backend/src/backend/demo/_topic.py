"""The demo as a Kafka consumer: committed messages only, from where the topic ends when it begins."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from relaybox.consumers import read_event
from relaybox.settings import KafkaSettings

from backend.demo._journal import Journal, Published
from backend.demo._timeline import StepMissed

__all__ = ("Topic",)

_ANSWER_S: Final = 30.0
_POLL_S: Final = 0.05
_MESSAGES_MAX: Final = 500


class Topic:
    """Reads *name* from its present end."""

    def __init__(self, consumer: Any, name: str) -> None:
        self._consumer = consumer
        self.name = name

    @classmethod
    @asynccontextmanager
    async def opened(cls, kafka: KafkaSettings, name: str) -> AsyncGenerator["Topic"]:
        """A consumer without a group's memory, assigned to the ends of all partitions.

        Raises:
            StepMissed: no broker answers.
        """
        settings = {
            **kafka.client_config(),
            "group.id": "backend-demo",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 20,
            "log_level": 0,
        }
        consumer: Any = Consumer(settings)
        try:
            try:
                await asyncio.to_thread(_assign_ends, consumer, name)
            except KafkaException as error:
                raise StepMissed(f"no Kafka broker answers at {kafka.bootstrap_servers}: {error}") from error
            yield cls(consumer, name)
        finally:
            await asyncio.to_thread(consumer.close)

    async def listen(self, journal_of: Callable[[str], Journal | None]) -> None:
        """Write every message to the journal of its key, if it has one, until cancelled.

        The client rides out outages.
        """
        while True:
            polling = asyncio.ensure_future(asyncio.to_thread(self._consumer.consume, _MESSAGES_MAX, _POLL_S))
            # A consumer must not be closed while a thread polls it.
            try:
                messages = await asyncio.shield(polling)
            except asyncio.CancelledError:
                await polling
                raise
            for message in messages:
                journal = None if message.error() else journal_of((message.key() or b"").decode())
                if journal is not None:
                    journal.publish(
                        Published(
                            event=read_event(message, reader="demo"),
                            topic=message.topic(),
                            partition=message.partition(),
                            offset=message.offset(),
                        )
                    )


def _assign_ends(consumer: Any, name: str) -> None:
    partitions = consumer.list_topics(name, timeout=_ANSWER_S).topics[name].partitions
    ends = {
        number: consumer.get_watermark_offsets(TopicPartition(name, number), timeout=_ANSWER_S)[1]
        for number in partitions
    }
    consumer.assign([TopicPartition(name, number, end) for number, end in ends.items()])
