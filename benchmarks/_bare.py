"""The programs that ``relay.py`` compares with the relay, each in a separate process.

* ``loop``: repeatedly select 2,000 rows, produce, flush, update by id. Without any guarantee: no lanes, no
  check of acknowledgements, no order after an error, no second relay.
* ``producer``: produce the same records from memory, the maximum for one client on this machine.

Both write the same bytes and headers, with the same linger and compression, as the relay. A program prints
``ready``, waits for a line on standard input, runs, and prints its seconds as JSON.
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
    """A record for Kafka, with the id of its row."""

    id: Any
    topic: str
    key: str
    value: str
    headers: list[tuple[str, str]]


def event_of(row: Sequence[Any]) -> Event:
    """Build the record of a row of ``select_batch``, with the headers that the relay writes."""
    # Access to columns by position takes half the time of access by name.
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
    """Print ``ready``, wait for the start signal, and return the time of the start."""
    # Disable garbage collection, which would find no garbage and slow down both programs.
    gc.collect()
    gc.disable()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    return time.perf_counter()


async def loop() -> float:
    """Run the loop until the backlog is published, and return the seconds."""
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
    """Read the backlog into memory, produce it, and return the seconds of producing."""
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
    """Run ``loop`` or ``producer`` on the current backlog in a separate process, and return its seconds."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, name), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdout.readline()
    process.stdin.write(b"go\n")
    answer, _ = await process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"the {name} ended with exit code {process.returncode}")
    return float(json.loads(answer)["seconds"])


if __name__ == "__main__":
    seconds = asyncio.run({"loop": loop, "producer": produce_all}[sys.argv[1]]())
    sys.stdout.write(json.dumps({"seconds": seconds}) + "\n")
