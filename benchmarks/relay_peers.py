"""Compare the relay with Debezium and faststream-outbox: the same backlog, and the same single events.

Debezium delivers at least once, and is compared with the relay with AtLeastOnce, and with ExactlyOnce, the
relay's default.

The contestants run on one machine, one at a time, in turns; the JVM of Debezium keeps running while its
connector is stopped. Each has a separate table in the same PostgreSQL (``wal_level=logical``), and the
settings for speed of its documentation, see README.md. The time of a backlog ends when the topic has all of
its events; for the relay it ends later, when the last row is marked as SENT.
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from _backlog import SHORT_DRAINS, Backlog, connected, relays
from _debezium import Connect, connect_jars
from _load import percentile
from _peers import peers_home
from _process import resident_mb
from _stage import servers, show
from _watch import Watcher, empty_topic, records_in
from pydantic_core import to_json
from relay_latency import DELIVERIES, WARM_UP, Writer, envelope_of, single_ms
from relaybox.db import load_queries
from relaybox.local import LocalPostgres
from relaybox.settings import KafkaSettings, PostgresSettings, load_settings
from relaybox.topics import ensure_topics

SQL: Final = load_queries("statements", "peers.sql")
DEBEZIUM_TOPIC: Final = "peer-debezium"
FASTSTREAM_TOPIC: Final = "peer-faststream"
_LOOK_S: Final = 0.02
_MOVED_S: Final = 600.0
_FASTSTREAM_STARTS_S: Final = 60.0


async def moved_per_s(topic: str, events: int, fill: Callable[[], Awaitable[Any]]) -> float:
    """Return events per second, from the commit of *fill* until *topic* has *events* records."""
    await asyncio.to_thread(empty_topic, topic)
    await fill()
    began = time.perf_counter()
    await until_holds(topic, events)
    return events / (time.perf_counter() - began)


async def until_holds(topic: str, records: int) -> None:
    """Wait until *topic* contains *records* records."""
    async with asyncio.timeout(_MOVED_S):
        while True:
            if await asyncio.to_thread(records_in, topic) >= records:
                return
            await asyncio.sleep(_LOOK_S)


class Peers:
    """The contestants; a method starts one, measures it with the backlog, and stops it."""

    def __init__(self, postgres: LocalPostgres, backlog: Backlog, connect: Connect, admin: Any) -> None:
        self._postgres = postgres
        self._backlog = backlog
        self._connect = connect
        self._admin = admin
        #: Resident memory in MB after the last backlog, by contestant.
        self.resident: dict[str, float] = {}

    async def relaybox(self, name: str) -> float:
        """Publish the backlog with the delivery *name*; return events per second."""
        with relays(1, DELIVERIES[name]) as running:
            await self._backlog.shared_by(1)
            drained = await self._backlog.drain(running)
            self.resident[name] = resident_mb(running[0].pid)
        return drained.per_s

    async def debezium(self) -> float:
        """Publish the backlog with Debezium after it has caught up with the WAL; return events per second."""
        await self._resumed()
        await self._admin.execute(SQL["empty_debezium"])
        per_s = await moved_per_s(
            DEBEZIUM_TOPIC,
            self._backlog.events,
            lambda: self._admin.fetch(SQL["fill_debezium"], DEBEZIUM_TOPIC),
        )
        self.resident["debezium"] = resident_mb(self._connect.pid)
        await self._connect.stop()
        return per_s

    async def faststream(self) -> float:
        """Publish the backlog with faststream-outbox; return events per second.

        Its relay starts before the backlog is written. The relay is then notified in the same way as by
        publish() of faststream-outbox.
        """

        async def fill() -> None:
            async with self._admin.transaction():
                await self._admin.fetch(SQL["fill_faststream"])
                await self._admin.fetch(SQL["wake_faststream"])

        async with faststream_relay(self._postgres):
            await self._until_faststream_listens()
            return await moved_per_s(FASTSTREAM_TOPIC, self._backlog.events, fill)

    async def _until_faststream_listens(self) -> None:
        async with asyncio.timeout(_FASTSTREAM_STARTS_S):
            while True:
                [row] = await self._admin.fetch(SQL["listens_faststream"])
                if row["listens"]:
                    return
                await asyncio.sleep(_LOOK_S)

    async def debezium_ms(self, events: int) -> list[float]:
        """Return the milliseconds from the commit of each single event to its arrival, with Debezium."""
        await self._resumed()
        watcher = Watcher(DEBEZIUM_TOPIC)
        watcher.start()
        writer = DebeziumWriter(self._admin)
        await single_ms(writer, watcher, WARM_UP)
        waits_ms = await single_ms(writer, watcher, events)
        watcher.stop()
        await self._connect.stop()
        return waits_ms

    async def _resumed(self) -> None:
        """Resume the connector, and wait until it has read the WAL that was written while it was stopped."""
        await self._connect.resume()
        await asyncio.to_thread(empty_topic, DEBEZIUM_TOPIC)
        await DebeziumWriter(self._admin).write()
        await until_holds(DEBEZIUM_TOPIC, 1)


class DebeziumWriter:
    """Commit single events to the table of Debezium."""

    def __init__(self, admin: Any) -> None:
        self._admin = admin
        #: The time at which COMMIT returned, by the key of the event.
        self.committed: dict[str, float] = {}

    async def write(self) -> str:
        """Commit one event of a new key; returns the key."""
        key = str(uuid4())
        payload = to_json(envelope_of(key)).decode()
        await self._admin.fetch(SQL["append_debezium"], DEBEZIUM_TOPIC, key, payload)
        self.committed[key] = time.perf_counter()
        return key


@asynccontextmanager
async def faststream_relay(postgres: LocalPostgres) -> AsyncGenerator[None]:
    """Run ``_faststream.py`` with the Python of the peers' environment during a ``with`` block."""
    where = f"{postgres.host}:{postgres.port}/{load_settings(PostgresSettings).db}"
    environment = {
        **os.environ,
        "PEER_DATABASE": f"postgresql+asyncpg://{postgres.superuser}:{postgres.superuser_password}@{where}",
        "PEER_KAFKA": load_settings(KafkaSettings).bootstrap_servers,
        "PEER_TOPIC": FASTSTREAM_TOPIC,
    }
    script = Path(__file__).with_name("_faststream.py")
    process = await asyncio.create_subprocess_exec(
        *(str(faststream_python(fetch=False)), str(script)), env=environment
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


def faststream_python(*, fetch: bool) -> Path | None:
    """Return the Python of the peers' environment; None if there is none, see :func:`peers_home`."""
    home = peers_home(fetch=fetch)
    return None if home is None else home / "bin" / "python"


async def ours_ms(delivery: str, events: int) -> list[float]:
    """Return the milliseconds from commit to arrival of single events, by a relay with *delivery*."""
    async with Writer.started() as writer:
        with relays(1, delivery):
            watcher = Watcher()
            watcher.start()
            await single_ms(writer, watcher, WARM_UP)
            waits_ms = await single_ms(writer, watcher, events)
            watcher.stop()
    return waits_ms


async def main(jars: list[Path], rounds: int, events: int, singles: int, *, short: bool) -> None:
    """Run the benchmark, and print the figures."""
    async with (
        servers(kafka=True, wal_level="logical") as postgres,
        Backlog.made(postgres, events=events) as backlog,
        connected(postgres) as admin,
    ):
        await ensure_topics(load_settings(KafkaSettings), [DEBEZIUM_TOPIC, FASTSTREAM_TOPIC])
        await admin.execute(SQL["create_debezium_outbox"])
        await admin.execute(SQL["decode_in_memory"])
        await admin.fetch(SQL["reload"])
        async with Connect.started(postgres, jars) as connect:
            await (backlog.warm_broker(SHORT_DRAINS) if short else backlog.warm_broker())
            peers = Peers(postgres, backlog, connect, admin)
            rates = await peer_rates(peers, rounds)
            waits_ms = {name: await ours_ms(delivery, singles) for name, delivery in DELIVERIES.items()}
            waits_ms["debezium"] = await peers.debezium_ms(singles)
    figures = figures_of(rates) | latencies(waits_ms)
    figures |= {f"{name}_rss_mb": round(resident) for name, resident in peers.resident.items()}
    rows = [(name, str(value)) for name, value in figures.items()]
    show(f"{events:,} events, and {singles} single ones", rows, figures)


async def peer_rates(peers: Peers, rounds: int) -> dict[str, list[float]]:
    """Return events per second of each contestant, measured in turns; the first round is a warm-up.

    The warm-up leaves out faststream-outbox, because a new process of it is started in each round.
    """
    works: dict[str, Callable[[], Awaitable[float]]] = {
        **{name: partial(peers.relaybox, name) for name in DELIVERIES},
        "debezium": peers.debezium,
        "faststream": peers.faststream,
    }
    rates: dict[str, list[float]] = {name: [] for name in works}
    for number in range(-1, rounds):
        for name in list(works)[:: 1 if number % 2 else -1]:
            if number >= 0:
                rates[name].append(await works[name]())
            elif name != "faststream":
                await works[name]()
    return rates


def figures_of(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Return the medians over the rounds: of the rates, and of the ratios within a round."""
    figures: dict[str, Any] = {}
    for name in DELIVERIES:
        for peer in ("debezium", "faststream"):
            ratios = [ours / other for ours, other in zip(rates[name], rates[peer], strict=True)]
            figures[f"{name}_ratio_{peer}"] = round(statistics.median(ratios), 2)
    return figures | {f"{name}_per_s": round(statistics.median(values)) for name, values in rates.items()}


def latencies(waits_ms: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return p50 and p99 in milliseconds, by contestant."""
    return {
        f"{name}_p{percent}_ms": round(percentile(waits, percent), 1)
        for name, waits in waits_ms.items()
        for percent in (50, 99)
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--singles", type=int, default=300)
    parser.add_argument("--short", action="store_true", help="one short round, if the peers are installed")
    given = parser.parse_args()
    found = connect_jars(fetch=not given.short)
    if not found or faststream_python(fetch=not given.short) is None:
        show("Peers", [("skipped", "run once without --short, which downloads the peers")], {"skipped": True})
        raise SystemExit(0)
    sizes = (1, 20_000, 30) if given.short else (given.rounds, given.events, given.singles)
    asyncio.run(main(found, *sizes, short=given.short))
