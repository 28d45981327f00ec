"""The loop and the producer that ``relay.py`` compares with the relay, each a separate process.

* ``loop``: select 2,000, produce, flush, update by id, over and over. No guarantee at all: no
  lanes, no look at the acknowledgements, nothing about order after an error, no second relay.
* ``producer``: the same records from memory. What Kafka takes from one client on this machine.

Same bytes, headers, linger and compression as the relay. Says ``ready``, waits for a line, runs,
and says how long it took as JSON.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from _backlog import SQL, connected
from confluent_kafka import Producer
from relaybox.settings import KafkaSettings, RelaySettings, load_settings

__all__ = ("run_contestant",)

BATCH_ROWS: Final = 2_000
#: The relay's producer settings that affect throughput.
PRODUCER: Final[dict[str, Any]] = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 100,
    "batch.size": 1_000_000,
    "partitioner": "murmur2_random",
    "socket.nagle.disable": True,
}


class Event(NamedTuple):
    """One record and the row it came from."""

    id: Any
    topic: str
    key: str
    value: str
    headers: list[tuple[str, str]]


def event_of(row: Sequence[Any]) -> Event:
    """Build the record of a row of ``select_batch``, with the headers that the relay writes."""
    # Access by position costs half of that by name.
    row_id, topic, key, value, event_id, event_type, time_, subject, correlation_id, source = row
    headers = [
        ("ce_specversion", "1.0"),
        ("content-type", "application/json"),
        ("ce_id", event_id),
        ("ce_type", event_type),
        ("ce_source", "/" + source),
        ("ce_time", time_),
        ("ce_subject", subject),
        ("ce_partitionkey", key),
        ("ce_correlationid", correlation_id),
    ]
    return Event(row_id, topic, key, value, headers)


def new_producer() -> Producer:
    """Create a producer and wait until it is connected."""
    client = load_settings(KafkaSettings).client_config()
    compression = load_settings(RelaySettings).compression
    producer = Producer({**PRODUCER, **client, "compression.type": compression, "log_level": 0})
    producer.list_topics(timeout=10)
    return producer


def produce(producer: Producer, event: Event) -> None:
    """Produce one record; wait while the queue is full."""
    _, topic, key, value, headers = event
    wanted: Any = headers
    while True:
        try:
            producer.produce(topic, value, key, headers=wanted)
        except BufferError:
            producer.poll(0.1)
        else:
            return


def told_to_go() -> float:
    """Wait for the start signal; returns the time."""
    # Without garbage collection, which would find nothing and slow down both contestants.
    gc.collect()
    gc.disable()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    return time.perf_counter()


async def loop() -> float:
    """Publish the backlog; returns seconds."""
    producer = new_producer()
    async with connected() as connection:
        began = told_to_go()
        while rows := await connection.fetch(SQL["select_batch"], BATCH_ROWS):
            events = [event_of(row) for row in rows]
            for event in events:
                produce(producer, event)
            producer.flush()
            await connection.fetch(SQL["mark_batch"], [event.id for event in events])
        return time.perf_counter() - began


async def produce_all() -> float:
    """Produce the backlog from memory; returns seconds."""
    producer = new_producer()
    async with connected() as connection:
        rows = await connection.fetch(SQL["select_batch"], 2**31 - 1)
    events = [event_of(row) for row in rows]
    began = told_to_go()
    for event in events:
        produce(producer, event)
    producer.flush()
    return time.perf_counter() - began


async def run_contestant(name: str) -> float:
    """Run ``loop`` or ``producer`` in a separate process on the current outbox; returns seconds."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, name), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdout.readline()
    process.stdin.write(b"go\n")
    answer, _ = await process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"the {name} ended with {process.returncode}")
    return float(json.loads(answer)["seconds"])


if __name__ == "__main__":
    seconds = asyncio.run({"loop": loop, "producer": produce_all}[sys.argv[1]]())
    sys.stdout.write(json.dumps({"seconds": seconds}) + "\n")
