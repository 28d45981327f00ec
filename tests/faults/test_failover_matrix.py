"""The failover matrix: lag of the standby × fate of the relays × order of reconnection (G35).

A lag in seconds stands for the published events that the standby lacks, at 200 events/s: the test waits for
their marks, not for time. Without a lag the standby is synchronous.
"""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from relaybox.cli import app
from relaybox.db import Database, DatabaseError
from relaybox.relay import Relay
from relaybox.settings import KafkaSettings, PostgresSettings, RelaySettings
from typer.testing import CliRunner

from tests.faults.chaos._proxy import Proxy
from tests.fixtures.failover import DatabasePair
from tests.fixtures.processes import server_environment
from tests.fixtures.relays import notify, put_events, read_topic, rows_of, wait_until_all_sent
from tests.fixtures.waiting import eventually

pytestmark = pytest.mark.slow

EVENTS_PER_S = 200
#: Keys of each of two writers.
KEYS = [[f"key-{writer}-{number}" for number in range(10)] for writer in range(2)]
SETTINGS = RelaySettings(poll_interval=0.2, lease_s=1)
#: Pause of a writer between two transactions.
PAUSE_S = 0.05
#: Number of events that each server must record before the next step.
EVENTS_MIN = 40
Party = Literal["relays", "writers"]
_LAST = "SELECT coalesce(max(seq), 0) FROM event_outbox"
_SENT_AFTER = "SELECT count(*) FROM event_outbox WHERE status = 'SENT' AND seq > $1::bigint"
_SETTLED = """
    SELECT o.history = system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8)
           AND NOT EXISTS (SELECT FROM relay_lanes AS l WHERE l.history_id IS DISTINCT FROM o.history_id)
    FROM relay_origin AS o, pg_control_system()
"""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination of the matrix."""

    lag_s: float
    relays: Literal["survive", "restart"]
    first: Party

    def __str__(self) -> str:
        return f"{self.lag_s:g}s-{self.relays}-{self.first}-first"


CELLS = [
    Cell(lag_s=lag_s, relays=relays, first=first)
    for lag_s, relays, first in itertools.product(
        (0, 0.1, 0.5, 6), ("survive", "restart"), ("relays", "writers")
    )
]
#: The short form: each value of each dimension.
SHORT = [
    Cell(lag_s=0, relays="survive", first="writers"),
    Cell(lag_s=0.1, relays="restart", first="writers"),
    Cell(lag_s=0.5, relays="survive", first="relays"),
    Cell(lag_s=6, relays="restart", first="relays"),
]


@dataclass(kw_only=True)
class Writer:
    """Writes one event of each of its keys per transaction, version by version."""

    database: Database
    topic: str
    keys: list[str]
    acknowledged: int = 0

    async def run(self) -> None:
        for version in itertools.count(1):
            with suppress(DatabaseError):
                await put_events(self.database, self.topic, self.keys, first=version)
                self.acknowledged += len(self.keys)
                await notify(self.database)
            await asyncio.sleep(PAUSE_S)


class RunningRelay(NamedTuple):
    relay: Relay
    database: Database
    task: asyncio.Task[None]


@dataclass(kw_only=True)
class Stage:
    """Two servers with separate addresses for writers and relays."""

    pair: DatabasePair
    address_of_relays: Proxy
    settings: PostgresSettings
    kafka: KafkaSettings
    topic: str
    writers: list[Writer]
    _relays: list["RunningRelay"] = field(default_factory=list["RunningRelay"])

    def start_relays(self) -> None:
        """Start two relays with separate connections."""
        address = self.settings.model_copy(update={"port": self.address_of_relays.port})
        for _ in range(2):
            database = Database(address)
            relay = Relay(database, self.kafka, SETTINGS)
            self._relays.append(RunningRelay(relay, database, asyncio.create_task(relay.run())))

    async def kill_relays(self) -> None:
        """Kill the relays, which neither finish a batch nor release a lane."""
        for running in self._relays:
            running.task.cancel()
        await asyncio.gather(*(running.task for running in self._relays), return_exceptions=True)
        for running in self._relays:
            await running.database.close()
        self._relays.clear()

    async def stop_relays(self) -> None:
        """Stop the relays; an earlier exit fails the test."""
        assert not any(running.task.done() for running in self._relays)
        for running in self._relays:
            running.relay.stop()
        await asyncio.gather(*(running.task for running in self._relays))

    def lead(self, party: Party) -> None:
        """Redirect one address to the promoted server."""
        address = self.address_of_relays if party == "relays" else self.pair.address
        address.redirect(self.pair.standby.port)

    async def works(self, party: Party) -> None:
        """Wait until the writers or the relays work on the promoted server."""
        if party == "relays":
            await eventually("relays hold all lanes", lambda: self.ask(self.pair.standby.port, _SETTLED))
        else:
            await self.written()

    async def written(self) -> None:
        """Wait until each writer has written."""
        goals = [(writer, writer.acknowledged + EVENTS_MIN) for writer in self.writers]

        async def reached() -> bool:
            return all(writer.acknowledged >= goal for writer, goal in goals)

        await eventually("the writers write", reached)

    async def published(self, events: int) -> None:
        """Wait until that many events that are written from now on are SENT on the primary."""
        port = self.pair.primary.port
        last = await self.ask(port, _LAST)

        async def reached() -> bool:
            return await self.ask(port, _SENT_AFTER, last) >= events

        await eventually(f"{events} more events are SENT", reached)

    async def ask(self, port: int, statement: str, *arguments: object) -> Any:
        """Query one server directly, without the addresses."""
        async with self.direct(port) as database, database.connection() as connection:
            [row] = await connection.fetch(statement, *arguments)
        return row[0]

    @asynccontextmanager
    async def direct(self, port: int) -> AsyncGenerator[Database]:
        database = Database(self.settings.model_copy(update={"port": port}))
        try:
            yield database
        finally:
            await database.close()


@pytest.fixture
async def stage(pair: DatabasePair, kafka_settings: KafkaSettings, topic: str) -> AsyncGenerator[Stage]:
    address = Proxy(pair.primary.port)
    await address.start()
    stage = Stage(
        pair=pair,
        address_of_relays=address,
        settings=pair.database.settings,
        kafka=kafka_settings,
        topic=topic,
        writers=[Writer(database=pair.database, topic=topic, keys=keys) for keys in KEYS],
    )
    yield stage
    await stage.kill_relays()
    await address.close()


async def fail_over(stage: Stage, cell: Cell) -> int:
    """Fail over as *cell* says while writers and relays work; return how many events at least are lost."""
    events = round(cell.lag_s * EVENTS_PER_S)
    await stage.pair.require_standby(required=not events)
    await stage.published(EVENTS_MIN)
    if events:
        await stage.pair.pause_replication()
        await stage.published(events)
    if cell.relays == "restart":
        await stage.kill_relays()
    await stage.pair.promote()
    stage.lead(cell.first)
    if cell.relays == "restart":
        stage.start_relays()
    await stage.works(cell.first)
    second: Party = "writers" if cell.first == "relays" else "relays"
    stage.lead(second)
    await stage.works(second)
    await stage.written()
    return events


async def settle(stage: Stage, writing: list[asyncio.Task[None]]) -> None:
    """Stop the writers, and the relays once the outbox is published."""
    assert not any(task.done() for task in writing)
    for task in writing:
        task.cancel()
    await asyncio.gather(*writing, return_exceptions=True)
    async with stage.direct(stage.pair.standby.port) as database:
        await wait_until_all_sent(database)
    await stage.stop_relays()


async def require_nothing_wrong(stage: Stage, lost_min: int) -> int:
    """Assert that each row is on the topic once and in order, and that verify agrees.

    Returns:
        The number of events on the topic that the database does not have.
    """
    records = read_topic(stage.kafka.bootstrap_servers, stage.topic)
    async with stage.direct(stage.pair.standby.port) as database:
        rows = {row["payload"]["event_id"]: row for row in await rows_of(database)}
    times = Counter(record.event_id for record in records)
    assert {event_id for event_id, row in rows.items() if row["status"] == "SENT"} == rows.keys()
    assert rows.keys() - times.keys() == set(), "SENT rows off the topic"
    assert [event_id for event_id, count in times.items() if count > 1] == [], "duplicates"
    for key in itertools.chain(*KEYS):
        versions = [record.version for record in records if record.key == key]
        assert versions == sorted(set(versions)), "reordered"
        seqs = [rows[one.event_id]["seq"] for one in records if one.key == key and one.event_id in rows]
        assert seqs == sorted(seqs), "reordered"
    lost = times.keys() - rows.keys()
    assert len(lost) >= lost_min
    exit_code, report = await verified(stage)
    found = {kind: tally["events"] for kind, tally in report["tallies"].items() if tally["events"]}
    assert found == ({"not-in-database": len(lost)} if lost else {})
    named = {one["event_id"] for finding in report["findings"] for one in finding["examples"]}
    assert named <= lost
    assert (exit_code, report["holds"]) == ((1, False) if lost else (0, True))
    return len(lost)


async def verified(stage: Stage) -> tuple[int, dict[str, Any]]:
    settings = stage.settings.model_copy(update={"port": stage.pair.standby.port})
    environment = {**server_environment(settings, stage.kafka), "OUTBOX_TOPICS": stage.topic}
    done = await asyncio.to_thread(CliRunner().invoke, app, ["verify", "--json"], env=environment)
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.guarantee("G35")
@pytest.mark.parametrize(
    ("cell", "rounds"),
    [
        *(pytest.param(cell, 1, id=f"{cell}-1") for cell in SHORT),
        *(
            pytest.param(cell, 5, id=f"{cell}-5", marks=[pytest.mark.long, pytest.mark.timeout(1_200)])
            for cell in CELLS
        ),
    ],
)
async def test_failover_loses_repeats_and_reorders_nothing(
    stage: Stage, server_dir: Path, cell: Cell, rounds: int
) -> None:
    writing = [asyncio.create_task(writer.run()) for writer in stage.writers]
    stage.start_relays()
    lost_min = 0
    for done in range(1, rounds + 1):
        lost_min += await fail_over(stage, cell)
        if done < rounds:
            await stage.pair.add_standby(server_dir / f"standby-{done}")
    await settle(stage, writing)
    lost = await require_nothing_wrong(stage, lost_min)
    assert cell.lag_s or not lost
    print(f"{cell}: {rounds} failovers, {lost} events lost by PostgreSQL")  # noqa: T201 - figures of the long form
