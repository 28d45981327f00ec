"""Measure whether accumulated data slows down the relay.

* **SENT rows**: a backlog is published from an outbox without SENT rows, and from one with 5,000,000.
* **An old snapshot**: 5 minutes at 1,000 events/s, and then a backlog; with and without a transaction that
  began before, so that vacuum cannot remove row versions and index entries.

One relay with ExactlyOnce, PostgreSQL with fsync, one Kafka broker, all on one machine.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from _backlog import SQL, TOPIC, Backlog, connected, relays
from _process import cpu_s
from _stage import Process, servers, show
from relaybox.db import load_queries
from relaybox.local import LocalPostgres
from relaybox.outbox import OUTBOX_CHANNEL

GROWTH: Final = load_queries("statements", "growth.sql")
PER_S: Final = 1_000
WRITES_PER_S: Final = 50
LOOK_S: Final = 0.1
DRAIN_S: Final = 600.0
ROUNDS: Final = 3


async def drain(connection: Any) -> float:
    """Add the whole backlog to the outbox, wait until it is published, and return events per second."""
    await connection.execute(SQL["checkpoint"])
    [before] = await connection.fetch(GROWTH["highest"])
    await connection.fetch(SQL["fill_outbox"], TOPIC)
    [filled] = await connection.fetch(GROWTH["highest"])
    return await rate(connection, before, filled)


async def rate(connection: Any, before: Any, filled: Any) -> float:
    """Wait until all rows after *before* are published; return rows per second since the time of *filled*."""
    await connection.fetch(SQL["wake_relays"], OUTBOX_CHANNEL)
    async with asyncio.timeout(DRAIN_S):
        while True:
            [row] = await connection.fetch(SQL["pending"])
            if not row["pending"]:
                break
            await asyncio.sleep(LOOK_S)
    [done] = await connection.fetch(GROWTH["sent_after"], before["seq"])
    return done["rows"] / (done["at"] - filled["at"]).total_seconds()


async def drains(connection: Any) -> float:
    """Return the median of events per second of several backlogs, after a warm-up."""
    rates = [await drain(connection) for _ in range(ROUNDS + 1)]
    return statistics.median(rates[1:])


async def beside_sent_rows(postgres: LocalPostgres, events: int, sent: int) -> dict[str, Any]:
    """Return events per second without SENT rows, and with *sent* SENT rows."""
    async with Backlog.made(postgres, events=events) as backlog, connected(postgres) as connection:
        await connection.execute(SQL["empty_outbox"])
        with relays(1, "exactly-once"):
            await backlog.shared_by(1)
            without = await drains(connection)
        await connection.execute(SQL["empty_outbox"])
        # In several transactions, like the writes of a service over days.
        for _ in range(max(1, sent // (10 * events))):
            await connection.fetch(GROWTH["make_sent"], TOPIC, 10)
        await connection.execute(GROWTH["vacuum_outbox"])
        with relays(1, "exactly-once"):
            await backlog.shared_by(1)
            beside = await drains(connection)
    return {
        "drain_per_s": round(without),
        "drain_beside_sent_per_s": round(beside),
        "ratio_sent_rows": round(beside / without, 2),
        "sent_rows": max(1, sent // (10 * events)) * 10 * events,
    }


async def write(connection: Any, duration_s: float) -> None:
    """Write events at a steady rate for *duration_s*, with notifications, as a service does."""
    portion, began = PER_S // WRITES_PER_S, time.monotonic()
    for number in range(int(duration_s * WRITES_PER_S)):
        await asyncio.sleep(began + number / WRITES_PER_S - time.monotonic())
        first = number % WRITES_PER_S * portion + 1
        await connection.fetch(GROWTH["write_some"], TOPIC, first, first + portion - 1)
        await connection.fetch(SQL["wake_relays"], OUTBOX_CHANNEL)


@asynccontextmanager
async def old_snapshot(postgres: LocalPostgres, *, wanted: bool) -> AsyncGenerator[None]:
    """If *wanted*, keep a transaction with a snapshot open during a ``with`` block."""
    if not wanted:
        yield
        return
    async with connected(postgres) as connection, connection.transaction(isolation="repeatable_read"):
        await connection.fetch(GROWTH["hold_snapshot"])
        yield


async def one_load(postgres: LocalPostgres, duration_s: float, *, snapshot: bool) -> dict[str, float]:
    """Run a steady load, then publish a backlog, with or without an old snapshot; return the figures."""
    async with connected(postgres) as connection:
        await connection.execute(SQL["empty_outbox"])
        async with Backlog.made(postgres, events=PER_S) as backlog, old_snapshot(postgres, wanted=snapshot):
            with relays(1, "exactly-once") as running:
                await backlog.shared_by(1)
                figures = await _loaded(connection, running, duration_s)
                return figures | {"drain_per_s": await _burst(connection)}


async def _loaded(connection: Any, running: Sequence[Process], duration_s: float) -> dict[str, float]:
    [before] = await connection.fetch(GROWTH["highest"])
    cpu_before_s = cpu_s(running[0].pid)
    await write(connection, duration_s)
    [done] = await connection.fetch(GROWTH["sent_after"], before["seq"])
    [now] = await connection.fetch(GROWTH["highest"])
    return {
        "per_s": done["rows"] / (now["at"] - before["at"]).total_seconds(),
        "cpu_us": (cpu_s(running[0].pid) - cpu_before_s) / max(done["rows"], 1) * 1e6,
    }


async def _burst(connection: Any) -> float:
    """Write the events of 20 seconds of the load at once, and return events published per second."""
    [before] = await connection.fetch(GROWTH["highest"])
    async with connection.transaction():
        for _ in range(20):
            await connection.fetch(GROWTH["write_some"], TOPIC, 1, PER_S)
    [filled] = await connection.fetch(GROWTH["highest"])
    return await rate(connection, before, filled)


async def under_an_old_snapshot(postgres: LocalPostgres, duration_s: float) -> dict[str, Any]:
    """Return events published per second without and with an old snapshot."""
    without = await one_load(postgres, duration_s, snapshot=False)
    beside = await one_load(postgres, duration_s, snapshot=True)
    return {
        "load_s": duration_s,
        "steady_per_s": round(without["per_s"]),
        "steady_old_snapshot_per_s": round(beside["per_s"]),
        "ratio_old_snapshot": round(beside["per_s"] / without["per_s"], 2),
        "drain_after_load_per_s": round(without["drain_per_s"]),
        "drain_old_snapshot_per_s": round(beside["drain_per_s"]),
        "ratio_drain_old_snapshot": round(beside["drain_per_s"] / without["drain_per_s"], 2),
        "relay_cpu_us_per_event": round(without["cpu_us"], 1),
        "relay_cpu_us_per_event_old_snapshot": round(beside["cpu_us"], 1),
    }


async def main(parts: Sequence[str], events: int, sent: int, load_s: float) -> None:
    """Run the benchmark, and print the figures."""
    figures: dict[str, Any] = {}
    async with servers(kafka=True) as postgres:
        if "snapshot" in parts:
            figures |= await under_an_old_snapshot(postgres, load_s)
        if "sent" in parts:
            figures |= await beside_sent_rows(postgres, events, sent)
    show(
        "The relay with accumulated data", [(name, f"{value:,}") for name, value in figures.items()], figures
    )


PARTS: Final = ("sent", "snapshot")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--sent", type=int, default=5_000_000)
    parser.add_argument("--load-s", type=float, default=300.0)
    parser.add_argument(
        "--part", choices=PARTS, action="append", help="part to run; may be repeated; by default all"
    )
    parser.add_argument("--short", action="store_true", help="100,000 SENT rows, 5 s of load")
    given = parser.parse_args()
    sizes = (10_000, 100_000, 5.0) if given.short else (given.events, given.sent, given.load_s)
    asyncio.run(main(given.part or PARTS, *sizes))
