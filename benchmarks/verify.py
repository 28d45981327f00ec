"""Measure the speed and the memory of ``relaybox verify``.

Writes SENT rows to the tables and their records to the topic, then runs the command in a separate process, as
an operator does, and measures from the start of this process to its end.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from _stage import servers, show
from confluent_kafka import Producer
from relaybox.db import Database
from relaybox.settings import KafkaSettings, PostgresSettings, load_settings

_HERE: Final = Path(__file__).parent
WRITE: Final = (_HERE / "write_published.sql").read_text()
READ: Final = (_HERE / "read_published.sql").read_text()
KEYS: Final = 1_000
CHUNK: Final = 20_000


async def fill(events: int) -> None:
    """Write *events* events to the tables as SENT, and produce their records with the relay's headers."""
    database = Database(load_settings(PostgresSettings), application_name="bench")
    producer = Producer(
        {
            "bootstrap.servers": load_settings(KafkaSettings).bootstrap_servers,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 2 * CHUNK,
            "linger.ms": 20,
        }
    )
    last = 0
    for start in range(0, events, CHUNK):
        async with database.connection() as connection:
            await connection.fetch(WRITE, start, min(start + CHUNK, events) - 1, KEYS)
            rows = await connection.fetch(READ, last, CHUNK)
        for row in rows:
            producer.produce(
                "domain-events", row["value"], row["key"], headers=headers(row["id"], row["key"])
            )
        producer.flush()
        last = rows[-1]["seq"]
    await database.close()


def headers(event_id: str, key: str) -> list[tuple[str, str]]:
    """Return the headers of a CloudEvent in binary mode."""
    return [
        ("ce_specversion", "1.0"),
        ("content-type", "application/json"),
        ("ce_id", event_id),
        ("ce_type", "Genesis.Session.Updated"),
        ("ce_source", "/bench"),
        ("ce_time", "2026-01-01T00:00:00+00:00"),
        ("ce_subject", key),
        ("ce_partitionkey", key),
        ("ce_correlationid", event_id),
    ]


def compare() -> tuple[dict[str, Any], float, float, float]:
    """Run the command; return its report, total seconds, CPU seconds and maximum memory in MB."""
    began_s = time.perf_counter()
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("relaybox")), "verify", "--json"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    report = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    if status or not report["holds"]:
        raise SystemExit(f"the topic is complete, but the report is: {report}")
    cpu_s = usage.ru_utime + usage.ru_stime
    return report, time.perf_counter() - began_s, cpu_s, usage.ru_maxrss / 1_024


async def main(events: int) -> None:
    """Run the benchmark, and print the figures."""
    async with servers(kafka=True):
        await fill(events)
        report, elapsed_s, cpu_s, rss_mb = await asyncio.to_thread(compare)
    assert report["published"] == report["records"] == events
    figures = {
        "events_per_s": round(events / elapsed_s),
        "cpu_us_per_event": round(cpu_s / events * 1e6, 1),
        "rss_mb": round(rss_mb),
        "events": events,
    }
    rows = [
        ("compared", f"{figures['events_per_s']:,} events/s"),
        ("from start to end", f"{elapsed_s:.1f} s"),
        ("CPU of the command, without PostgreSQL", f"{figures['cpu_us_per_event']} µs an event"),
    ]
    show(f"relaybox verify, {events:,} events", [*rows, ("resident, at most", f"{rss_mb:.0f} MB")], figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--short", action="store_true", help="a hundred thousand events")
    given = parser.parse_args()
    asyncio.run(main(100_000 if given.short else given.events))
