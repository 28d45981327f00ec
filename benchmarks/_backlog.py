"""Write a backlog to the outbox, let relays publish it, and measure the cost."""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg
from _process import cpu_s
from _stage import Process, started
from _watch import empty_topic
from relaybox.db import load_queries
from relaybox.local import LocalPostgres
from relaybox.outbox import OUTBOX_CHANNEL
from relaybox.settings import PostgresSettings, load_settings

__all__ = ("SHORT_DRAINS", "SQL", "TOPIC", "Backlog", "Drained", "connected", "relays")

SQL: Final = load_queries("statements", "backlog.sql")
TOPIC: Final = "domain-events"
_LANES: Final = 8
#: Environment variables that the container image sets for every service.
_IMAGE: Final = {"MALLOC_ARENA_MAX": "2"}
_LOOK_S: Final = 0.2
_READY_S: Final = 30.0
_DRAIN_S: Final = 300.0
_WARM_UP_DRAINS: Final = 12
#: Number of backlogs that are published untimed to warm up the broker in a short form. This is fewer than in
#: full runs, because figures of short forms are only compared with each other.
SHORT_DRAINS: Final = 3


@asynccontextmanager
async def connected(postgres: LocalPostgres | None = None) -> AsyncGenerator[Any]:
    """Open a connection as the services' role; with *postgres*, as the superuser of that server."""
    settings = load_settings(PostgresSettings)
    driver: Any = asyncpg
    connection = await driver.connect(
        host=settings.host,
        port=settings.port,
        database=settings.db,
        user=postgres.superuser if postgres else settings.user,
        password=postgres.superuser_password if postgres else settings.password.get_secret_value(),
        server_settings={"jit": "off"},
    )
    try:
        yield connection
    finally:
        await connection.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class Drained:
    """The rate at which a backlog was published, and the resources that this took."""

    per_s: float
    wal_bytes_per_event: float
    cpu_us_per_event: float


class Backlog:
    """A backlog of *events* events, which is written again for each contestant (program to compare)."""

    def __init__(self, connection: Any, events: int) -> None:
        self._connection = connection
        self.events = events

    @classmethod
    @asynccontextmanager
    async def made(
        cls, postgres: LocalPostgres, *, events: int, keys: int = 1_000, event_bytes: int = 600
    ) -> AsyncGenerator["Backlog"]:
        """Generate the events of a backlog in PostgreSQL: *keys* keys, *event_bytes* bytes per envelope."""
        async with connected(postgres) as connection:
            await connection.execute(SQL["create_events"])
            await connection.execute(SQL["create_plain_outbox"])
            await connection.fetch(SQL["make_events"], events, keys, event_bytes)
            [wrong] = await connection.fetch(SQL["count_wrong_sizes"], event_bytes)
            assert wrong["rows"] == 0, "the envelope leaves no room for the text"
            try:
                yield cls(connection, events)
            finally:
                await connection.execute(SQL["drop_events"])

    async def fill(self, *, plain: bool = False) -> tuple[datetime, int]:
        """Write the backlog to the empty outbox in one transaction.

        Args:
            plain: Write to the table of the bare contestants instead of the relay's outbox.

        Returns:
            The server's time and its WAL position after the commit.
        """
        await asyncio.to_thread(empty_topic, TOPIC)
        await self._connection.execute(SQL["empty_outbox"])
        await self._connection.execute(SQL["empty_plain_outbox"])
        await self._connection.execute(SQL["checkpoint"])
        async with self._connection.transaction():
            await self._connection.fetch(SQL["fill_plain_outbox" if plain else "fill_outbox"], TOPIC)
            await self._connection.execute(SQL["analyze_plain_outbox" if plain else "analyze_outbox"])
        [now] = await self._connection.fetch(SQL["now_and_wal"])
        return now["at"], int(now["wal_bytes"])

    async def drain(self, relays: Sequence[Process]) -> Drained:
        """Fill the outbox, wait until *relays* have published all rows, and return the cost."""
        at, wal_bytes = await self.fill()
        cpu_before_s = sum(cpu_s(relay.pid) for relay in relays)
        await self._connection.fetch(SQL["wake_relays"], OUTBOX_CHANNEL)
        await self._until_empty()
        took_cpu_s = sum(cpu_s(relay.pid) for relay in relays) - cpu_before_s
        [now] = await self._connection.fetch(SQL["now_and_wal"])
        [last] = await self._connection.fetch(SQL["last_sent"])
        assert last["rows"] == self.events, f"only {last['rows']} of {self.events} were sent"
        return Drained(
            per_s=self.events / (last["at"] - at).total_seconds(),
            wal_bytes_per_event=(int(now["wal_bytes"]) - wal_bytes) / self.events,
            cpu_us_per_event=took_cpu_s / self.events * 1e6,
        )

    async def _until_empty(self) -> None:
        async with asyncio.timeout(_DRAIN_S):
            while True:
                [row] = await self._connection.fetch(SQL["pending"])
                if not row["pending"]:
                    return
                await asyncio.sleep(_LOOK_S)

    async def warm_broker(self, drains: int = _WARM_UP_DRAINS) -> None:
        """Publish *drains* backlogs to warm up the broker's JVM; a cold broker takes three times as long."""
        with relays(1, "exactly-once") as running:
            await self.shared_by(1)
            for _ in range(drains):
                await self.drain(running)

    async def dead_tuples(self) -> int:
        """Count dead row versions, after the backends of the relays have reported their statistics."""
        async with asyncio.timeout(_READY_S):
            while True:
                [row] = await self._connection.fetch(SQL["dead_tuples"])
                if not row["backends"]:
                    return row["dead"]
                await asyncio.sleep(_LOOK_S)

    async def shared_by(self, count: int) -> None:
        """Wait until *count* relays own all lanes, each the same number."""
        until, shares = time.monotonic() + _READY_S, list[int]()
        while time.monotonic() < until:
            shares = sorted(row["lanes"] for row in await self._connection.fetch(SQL["lanes_by_owner"]))
            if shares == [_LANES // count] * count:
                return
            await asyncio.sleep(_LOOK_S)
        raise SystemExit(f"{count} relays did not share the lanes: {shares}")


@contextmanager
def relays(count: int, delivery: str, **environment: str) -> Generator[list[Process]]:
    """Run *count* relays with *delivery* during a ``with`` block, each in a separate process."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                started(
                    ["backend"],
                    SERVICE_TYPE="message-relay",
                    RELAY_DELIVERY=delivery,
                    **_IMAGE,
                    **environment,
                )
            )
            for _ in range(count)
        ]
