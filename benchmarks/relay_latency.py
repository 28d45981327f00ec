"""Measure the time from the commit of an event to its arrival at a consumer, and the cost of an idle relay.

Each event is one row with its own commit, followed by a notification. Writer and consumer are in this process
and use the same clock: the time is measured from the return of COMMIT until a ``read_committed`` consumer has
the event. First single events on an idle machine; then a steady rate in an open loop, where each event is
written at its scheduled time even if others are late. Before, the same steady rate warms the servers up until
the median no longer falls.
"""

import argparse
import asyncio
import gc
import random
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol
from uuid import uuid4

from _backlog import TOPIC, relays
from _load import percentile
from _process import counting_proxy, cpu_s
from _stage import servers, show
from _watch import Watcher
from pydantic_core import to_json
from relaybox.db import Database, load_queries
from relaybox.outbox import Notifier
from relaybox.settings import PostgresSettings, load_settings

DELIVERIES: Final = {"exactly_once": "exactly-once", "at_least_once": "at-least-once"}
APPEND: Final = load_queries("relaybox.outbox", "outbox.sql")["append"]
PAUSE_S: Final = (0.005, 0.03)
ARRIVAL_S: Final = 30.0
WARM_UP: Final = 50
SETTLE_S: Final = 6.0
#: Minimum seconds of the warm-up. The JVM of a new broker compiles the code of transactions under load: at
#: 600 events per second the median of 5 s fell from 207 to 36 ms within 40 s, and did not fall for 10 s in
#: between.
WARM_UP_S_MIN: Final = 30.0
WARM_UP_S_MAX: Final = 60.0
WARM_UP_SHORT_S_MAX: Final = 15.0
WARM_UP_TURN_S: Final = 3.0
#: The median is stable after this number of turns without a median below 0.8 times the previous minimum.
STABLE_TURNS: Final = 3
STABLE_RATIO: Final = 0.8
FILLER: Final = "x" * 120


class Writes(Protocol):
    """The interface of writers of single events."""

    #: The time at which COMMIT returned, by the key of the event.
    committed: dict[str, float]

    async def write(self) -> str:
        """Commit one event of a new key; returns the key."""
        ...


class Writer:
    """Commit single events to the outbox, and notify the relays."""

    def __init__(self, database: Database, notifier: Notifier) -> None:
        self._database = database
        self._notifier = notifier
        #: The time at which COMMIT returned, by the key of the event.
        self.committed: dict[str, float] = {}

    @classmethod
    @asynccontextmanager
    async def started(cls) -> AsyncGenerator["Writer"]:
        """Create a writer with a connection pool and a notifier, as in an application."""
        database = Database(load_settings(PostgresSettings), application_name="bench-writer")
        notifier = Notifier(database)
        await notifier.start()
        try:
            yield cls(database, notifier)
        finally:
            await notifier.stop()
            await database.close()

    async def write(self) -> str:
        """Commit one event of a new key; returns the key."""
        key = str(uuid4())
        payload = to_json(envelope_of(key)).decode()
        async with self._database.connection() as connection:
            await connection.fetch(APPEND, TOPIC, key, payload)
            self.committed[key] = time.perf_counter()
        self._notifier.notify([key])
        return key


def envelope_of(key: str) -> dict[str, Any]:
    """Return an envelope of about 600 bytes."""
    return {
        "event_id": str(uuid4()),
        "event_type": "Genesis.Session.FeedbackSubmitted",
        "event_version": 1,
        "aggregate_type": "GENESIS_SESSION",
        "aggregate_id": key,
        "correlation_id": str(uuid4()),
        "causation_id": None,
        "timestamp": "2026-01-01T00:00:00.000000Z",
        "version": 1,
        "payload": {"text": FILLER},
        "metadata": {"source_service": "api-gateway"},
    }


async def single_ms(writer: Writes, watcher: Watcher, events: int) -> list[float]:
    """Write *events* events, pausing after each arrival; return each event's commit-to-arrival time in ms."""
    waits_ms: list[float] = []
    for _ in range(events):
        key = await writer.write()
        arrived, at = await asyncio.to_thread(watcher.arrived.get, timeout=ARRIVAL_S)
        assert arrived == key, "unexpected event arrived: wait for each event before the next is written"
        waits_ms.append((at - writer.committed[key]) * 1_000)
        await asyncio.sleep(random.uniform(*PAUSE_S))
    return waits_ms


async def steady_ms(writer: Writer, watcher: Watcher, per_s: float, seconds: float) -> list[float]:
    """Write *per_s* events per second for *seconds*; return each event's commit-to-arrival time in ms."""
    began, writing = time.perf_counter(), list[asyncio.Task[str]]()
    for number in range(int(per_s * seconds)):
        await asyncio.sleep(max(0.0, began + number / per_s - time.perf_counter()))
        writing.append(asyncio.create_task(writer.write()))
    await asyncio.gather(*writing)
    waits_ms: list[float] = []
    for _ in writing:
        key, at = await asyncio.to_thread(watcher.arrived.get, timeout=ARRIVAL_S)
        waits_ms.append((at - writer.committed[key]) * 1_000)
    return waits_ms


async def warm_up_s(
    writer: Writer, watcher: Watcher, per_s: float, *, seconds_min: float, seconds_max: float
) -> float:
    """Write *per_s* events per second until the median is stable, for *seconds_min* to *seconds_max* seconds.

    Returns:
        The seconds of the warm-up.
    """
    lowest_ms, stable, seconds = float("inf"), 0, 0.0
    while seconds < seconds_max and (seconds < seconds_min or stable < STABLE_TURNS):
        median_ms = percentile(await steady_ms(writer, watcher, per_s, WARM_UP_TURN_S), 50)
        stable = 0 if median_ms < STABLE_RATIO * lowest_ms else stable + 1
        lowest_ms = min(lowest_ms, median_ms)
        seconds += WARM_UP_TURN_S
    return seconds


async def idle_cost(delivery: str, seconds: float) -> tuple[float, float]:
    """Return the percentage of a core and the queries per second of a relay without PENDING rows."""
    with (
        counting_proxy(load_settings(PostgresSettings).port) as (port, counter),
        relays(1, delivery, POSTGRES_PORT=str(port)) as [relay],
    ):
        await asyncio.sleep(SETTLE_S)
        took_s, asked, began = cpu_s(relay.pid), counter.asked, time.perf_counter()
        await asyncio.sleep(seconds)
        passed_s = time.perf_counter() - began
        return (cpu_s(relay.pid) - took_s) / passed_s * 100, (counter.asked - asked) / passed_s


async def main(events: int, per_s: float, *, warm_up_s_max: float, steady_s: float, idle_s: float) -> None:
    """Run the benchmark, and print the figures."""
    figures: dict[str, float] = {}
    async with servers(kafka=True), Writer.started() as writer:
        watcher = Watcher()
        watcher.start()
        # Disable garbage collection: a full one stops writer and consumer for 80 to 115 ms, and finds no
        # garbage.
        gc.collect()
        gc.disable()
        warm_up_s_min = WARM_UP_S_MIN
        for name, delivery in DELIVERIES.items():
            with relays(1, delivery):
                await single_ms(writer, watcher, WARM_UP)
                figures[f"{name}_warm_up_s"] = await warm_up_s(
                    writer, watcher, per_s, seconds_min=warm_up_s_min, seconds_max=warm_up_s_max
                )
                # The second delivery uses the same broker, which is warm.
                warm_up_s_min, warm_up_s_max = 0.0, warm_up_s_max / 2
                note(figures, name, await single_ms(writer, watcher, events))
                note(figures, f"{name}_steady", await steady_ms(writer, watcher, per_s, steady_s))
        watcher.stop()
        for name, delivery in DELIVERIES.items():
            percent, queries = await idle_cost(delivery, idle_s)
            figures[f"{name}_idle_cpu_percent"] = round(percent, 2)
            figures[f"{name}_idle_queries_per_s"] = round(queries, 2)
    figures |= {"events": events, "steady_per_s": per_s}
    show("From commit to consumer", [(name, str(value)) for name, value in figures.items()], figures)


def note(figures: dict[str, float], name: str, waits_ms: list[float]) -> None:
    """Add the percentiles of *waits_ms* to *figures*, with *name* as the prefix of their names."""
    for percent in (50, 99):
        figures[f"{name}_p{percent}_ms"] = round(percentile(waits_ms, percent), 1)
    figures[f"{name}_max_ms"] = round(max(waits_ms), 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000)
    parser.add_argument("--per-s", type=float, default=600.0)
    parser.add_argument("--steady-s", type=float, default=30.0)
    parser.add_argument("--idle-s", type=float, default=60.0)
    parser.add_argument(
        "--short", action="store_true", help="100 single events, 3 s of steady load, 3 s idle"
    )
    given = parser.parse_args()
    if given.short:
        given.events, given.steady_s, given.idle_s = 100, 3.0, 3.0
    asyncio.run(
        main(
            given.events,
            given.per_s,
            warm_up_s_max=WARM_UP_SHORT_S_MAX if given.short else WARM_UP_S_MAX,
            steady_s=given.steady_s,
            idle_s=given.idle_s,
        )
    )
