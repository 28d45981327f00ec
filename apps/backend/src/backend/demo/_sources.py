"""Read the events that the demo checks: from Kafka, and from an event stream of the API."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx2
from confluent_kafka import Consumer, KafkaException, TopicPartition
from pydantic_core import from_json
from relaybox.consumers import read_event
from relaybox.settings import KafkaSettings

from backend.demo._events import EventLog, Published
from backend.demo._timeline import StepMissed

__all__ = ("TopicReader", "follow_stream", "in_background")

_REQUEST_S: Final = 30.0
_POLL_S: Final = 0.05
_MESSAGES_MAX: Final = 500
_RECONNECT_S: Final = 0.2
#: The server sends a comment every 15 s; longer silence means that the connection is dead.
_SILENCE_S: Final = 40.0


class TopicReader:
    """Reads the committed messages that are written to a topic after the call of :meth:`opened`."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    @classmethod
    @asynccontextmanager
    async def opened(cls, kafka: KafkaSettings, topic: str) -> AsyncGenerator["TopicReader"]:
        """Open a consumer at the end offsets of all partitions; the consumer commits no offsets.

        Raises:
            StepMissed: No broker responds.
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
                await asyncio.to_thread(_assign_ends, consumer, topic)
            except KafkaException as error:
                raise StepMissed(f"no Kafka broker responds at {kafka.bootstrap_servers}: {error}") from error
            yield cls(consumer)
        finally:
            await asyncio.to_thread(consumer.close)

    async def read(self, log_of: Callable[[str], EventLog | None]) -> None:
        """Add each message to the log that *log_of* returns for its key, until cancelled.

        Messages for which *log_of* returns None are skipped. After an outage of Kafka the reader continues.
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
                log = None if message.error() else log_of((message.key() or b"").decode())
                if log is not None:
                    log.add_published(
                        Published(
                            event=read_event(message, reader="demo"),
                            topic=message.topic(),
                            partition=message.partition(),
                            offset=message.offset(),
                        )
                    )


def _assign_ends(consumer: Any, topic: str) -> None:
    partitions = consumer.list_topics(topic, timeout=_REQUEST_S).topics[topic].partitions
    ends = {
        number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_REQUEST_S)[1]
        for number in partitions
    }
    consumer.assign([TopicPartition(topic, number, end) for number, end in ends.items()])


async def follow_stream(client: httpx2.AsyncClient, path: str, log: EventLog) -> None:
    """Add the events of the event stream at *path* to *log* until cancelled.

    When the connection ends, connect again with Last-Event-ID, so that the stream continues after the last
    event.
    """
    last: int | None = None
    while True:
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        timeout = httpx2.Timeout(10.0, read=_SILENCE_S)
        try:
            async with client.stream("GET", path, headers=headers, timeout=timeout) as response:
                if response.is_success:
                    async for version, kind, data in _parse(response.aiter_lines()):
                        last = version or last
                        _add(log, version, kind, data)
        except httpx2.TransportError:
            pass  # the API may be restarting; connect again
        await asyncio.sleep(_RECONNECT_S)


def _add(log: EventLog, version: int | None, kind: str, data: Any) -> None:
    match kind:
        case "task.progress":
            log.add_progress(data["progress"])
        case "reset":
            log.faults.append(f"the event stream was reset at version {data['version']}")
        case _ if version is not None:
            log.add_streamed(version, data)
        case _:
            log.faults.append(f"the event stream sent {kind} without an id")


async def _parse(lines: AsyncIterator[str]) -> AsyncIterator[tuple[int | None, str, Any]]:
    """Yield id, type and data of each server-sent event (WHATWG HTML, section 9.2), without comments."""
    fields: dict[str, str] = {}
    async for line in lines:
        name, _, value = line.partition(": ")
        if line and name in ("id", "event", "data"):
            fields[name] = value
        elif not line:
            if "data" in fields:
                version = int(fields["id"]) if "id" in fields else None
                yield version, fields["event"], from_json(fields["data"])
            fields = {}


@asynccontextmanager
async def in_background(*readers: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """Run *readers* concurrently with the body of the context, and cancel them at its end.

    Raises:
        StepMissed: The body raised StepMissed; the message includes the error of a failed reader, a likely
            cause.
    """
    tasks = [asyncio.create_task(one) for one in readers]
    try:
        yield
    except StepMissed as missed:
        failure = await _stop(tasks)
        raise missed if failure is None else StepMissed(f"{missed} (reading failed: {failure})") from failure
    finally:
        await _stop(tasks)


async def _stop(tasks: Sequence[asyncio.Task[None]]) -> Exception | None:
    """Cancel *tasks*, and return the first error that one of them raised; None if none failed."""
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return next((one for one in results if isinstance(one, Exception)), None)
