"""Measure flows: steps, compared with DBOS, and 10,000 flows that wait for their events.

Steps: Relaybox's engine and DBOS run the same flows in turns, each in one process with the same number of
flows at a time, on one PostgreSQL with fsync. Waiting: flows wait for one event each; events arrive by Kafka
at 200/s, and each resumes a flow, which then inserts a row. Further: resumes per second when all events
arrive at once, and the round trips of a step and of a resume.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from _backlog import connected
from _bare import event_of, produce
from _flowing import APPLICATION, CONCURRENCY, EVENT_TYPE, SQL, WARM_UP_FLOWS, waiting_flow
from _load import percentile
from _peers import peers_home
from _process import counting_proxy, cpu_s, resident_mb
from _stage import servers, show
from confluent_kafka import Producer
from consumers import peer_environment
from pydantic_core import to_json
from relay_latency import envelope_of
from relaybox.db import Database
from relaybox.flows import start_flow
from relaybox.local import LocalPostgres
from relaybox.settings import KafkaSettings, PostgresSettings, load_settings
from relaybox.topics import ensure_topics

PARTS: Final = ("steps", "waiting", "round_trips")
HERE: Final = Path(__file__).parent
#: Programs and their kind of steps, by the prefix of their figures.
CONTESTANTS: Final = {
    "": ("relaybox", "insert"),
    "dbos_": ("dbos", "insert"),
    "dbos_at_least_once_": ("dbos", "at_least_once"),
    "value_": ("relaybox", "value"),
    "dbos_value_": ("dbos", "value"),
}
#: Contestants that are compared, by the prefix of their ratio.
PAIRS: Final = {
    "": ("", "dbos_"),
    "at_least_once_": ("", "dbos_at_least_once_"),
    "value_": ("value_", "dbos_value_"),
}
STEPS: Final = 10
FLOWS: Final = 400
FLOWS_SHORT: Final = 40
WAITING: Final = 10_000
WAITING_SHORT: Final = 400
#: Before the timed events, a fifth as many flows are resumed by events that arrive all at once.
BURST_SHARE: Final = 5
EVENTS_PER_S: Final = 200
PARTITIONS: Final = 8
TOPIC: Final = "bench-flows"
ROUND_TRIP_FLOWS: Final = 100
_FLOWS_PER_TRANSACTION: Final = 100
_LOOK_S: Final = 0.1
_TURN_S: Final = 300.0
_PROGRESS_S: Final = 60.0


class Turns:
    """Run one of the compared programs (contestants) at a time, each time in a new process."""

    def __init__(self, connection: Any, peers: Path | None) -> None:
        self._connection = connection
        self._peers = peers

    @property
    def contestants(self) -> dict[str, tuple[str, str]]:
        """Name and kind of steps of each installed contestant, by the prefix of its figures."""
        return {
            label: (name, kind)
            for label, (name, kind) in CONTESTANTS.items()
            if name == "relaybox" or self._peers is not None
        }

    async def took(
        self, name: str, kind: str, flows: int, steps: int, **environment: str
    ) -> dict[str, float]:
        """Return the seconds and CPU seconds in which a contestant runs *flows* flows of *steps* steps."""
        await self._connection.execute(SQL["empty_effects"])
        given = (kind, str(flows), str(steps))
        program = [sys.executable, str(HERE / "_flowing.py"), "steps", *given]
        if name == "dbos":
            assert self._peers is not None
            python = str(self._peers / "bin" / "python")
            sizes = (str(CONCURRENCY), str(WARM_UP_FLOWS))
            program = [python, str(HERE / "_dbos_flows.py"), *given, *sizes]
        process = await asyncio.create_subprocess_exec(
            *program,
            stdout=subprocess.PIPE,
            env={**os.environ, **peer_environment(), **environment},
        )
        output, _ = await asyncio.wait_for(process.communicate(), _TURN_S)
        if process.returncode:
            raise SystemExit(f"{name} ended with exit code {process.returncode}")
        return json.loads(output.splitlines()[-1])


async def steps(turns: Turns, flows: int, rounds: int) -> dict[str, Any]:
    """Run the contestants in turns; return rates, CPU times and ratios, which are medians over the rounds."""
    per_s: dict[str, list[float]] = defaultdict(list)
    cpu_us: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        for label in list(turns.contestants)[:: -1 if number % 2 else 1]:
            took = await turns.took(*turns.contestants[label], flows, STEPS)
            per_s[label].append(flows * STEPS / took["seconds"])
            cpu_us[label].append(took["cpu_s"] / (flows * STEPS) * 1e6)
    figures: dict[str, Any] = {}
    for label, found in per_s.items():
        figures[f"{label}steps_per_s"] = round(statistics.median(found))
        figures[f"{label}step_cpu_us"] = round(statistics.median(cpu_us[label]))
    for suffix, (ours, theirs) in PAIRS.items():
        if theirs in per_s:
            figures[f"{suffix}ratio_dbos"] = ratio(per_s[ours], per_s[theirs])
            figures[f"{suffix}cpu_ratio_dbos"] = ratio(cpu_us[theirs], cpu_us[ours])
    return figures


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Return the median over the rounds of the ratio of *above* to *below*."""
    return round(statistics.median(one / other for one, other in zip(above, below, strict=True)), 2)


class Service:
    """A process that runs the waiting flows, and queries of its state in PostgreSQL."""

    def __init__(self, connection: Any, process: subprocess.Popen[bytes]) -> None:
        self._connection = connection
        self._process = process

    @classmethod
    @contextmanager
    def running(cls, connection: Any, **environment: str) -> Generator["Service"]:
        """Run the process during a ``with`` block."""
        process = subprocess.Popen(
            [sys.executable, str(HERE / "_flowing.py"), "waiting", TOPIC], env={**os.environ, **environment}
        )
        try:
            yield cls(connection, process)
        finally:
            process.kill()
            process.wait()

    def cpu_s(self) -> float:
        """Return the CPU seconds of the process so far."""
        return cpu_s(self._process.pid)

    def resident_mb(self) -> float:
        """Return the resident memory of the process in MB."""
        return resident_mb(self._process.pid)

    async def connections(self) -> tuple[int, int]:
        """Return the number of open connections of the process, and of those that are not idle."""
        [row] = await self._connection.fetch(SQL["count_connections"], APPLICATION)
        return row["connections"], row["busy"]

    async def tasks(self) -> Any:
        """Return the numbers of flows that are ``waiting``, ``running`` and ``open`` (not completed)."""
        [row] = await self._connection.fetch(SQL["count_tasks"])
        return row

    async def until(self, name: str, wanted: int) -> None:
        """Wait until *wanted* flows are ``waiting`` or ``open``, as *name* says, or have had ``effects``.

        The benchmark fails if the number does not rise for a minute.
        """
        best, best_at_s = -1, time.monotonic()
        while (found := await self._found(name)) != wanted:
            if found > best:
                best, best_at_s = found, time.monotonic()
            if self._process.poll() is not None or time.monotonic() - best_at_s > _PROGRESS_S:
                raise SystemExit(f"{found} of {wanted} {name}; exit code {self._process.poll()}")
            await asyncio.sleep(_LOOK_S)

    async def suspended(self, count: int) -> list[UUID]:
        """Start *count* flows, wait until all of them wait, and return their ids."""
        await self._connection.execute(SQL["empty_effects"])
        keys = await start_flows(count)
        await self.until("waiting", count)
        return keys

    async def resumed(self, keys: Sequence[UUID], per_s: float | None) -> dict[UUID, float]:
        """Produce the events of *keys*, and wait until all flows have ended; return the scheduled times."""
        at_s = await asyncio.to_thread(pay, keys, per_s)
        await self.until("effects", len(keys))
        await self.until("open", 0)
        return at_s

    async def _found(self, name: str) -> int:
        if name == "effects":
            return (await self._connection.fetch(SQL["count_effects"]))[0]["effects"]
        return (await self.tasks())[name]


async def start_flows(count: int) -> list[UUID]:
    """Start flows as their application does, 100 in a transaction; return their ids in random order."""
    database = Database(load_settings(PostgresSettings), application_name="bench-start")
    ids = [uuid4() for _ in range(count)]
    for at in range(0, count, _FLOWS_PER_TRANSACTION):

        async def start(db: Any, some: list[UUID] = ids[at : at + _FLOWS_PER_TRANSACTION]) -> None:
            for one in some:
                await start_flow(db, waiting_flow, {}, flow_id=one)

        await database.run_in_transaction(start)
    await database.close()
    random.Random(0).shuffle(ids)
    return ids


def pay(keys: Sequence[UUID], per_s: float | None) -> dict[UUID, float]:
    """Produce an event for each key, at its scheduled time; return the scheduled times.

    Args:
        keys: Ids of the flows that wait; each is the key of one event.
        per_s: Events per second; None for all at once.
    """
    producer = Producer({**load_settings(KafkaSettings).client_config(), "linger.ms": 0, "log_level": 0})
    began_s, at_s = time.time(), dict[UUID, float]()
    for number, key in enumerate(keys):
        at_s[key] = began_s if per_s is None else began_s + number / per_s
        time.sleep(max(0.0, at_s[key] - time.time()))
        envelope = envelope_of(str(key)) | {"event_type": EVENT_TYPE}
        attributes = (envelope["event_id"], EVENT_TYPE, envelope["timestamp"], str(key))
        row = (None, TOPIC, str(key), to_json(envelope).decode(), *attributes)
        produce(producer, event_of((*row, envelope["correlation_id"], "shop")))
        producer.poll(0)
    producer.flush()
    return at_s


async def waiting(connection: Any, count: int) -> dict[str, Any]:
    """Let *count* flows wait, measure the resources that they need, and resume them by events."""
    with Service.running(connection) as service:
        # A fifth as many flows warm the process up first; their events arrive all at once.
        await service.resumed(await service.suspended(count // BURST_SHARE), None)
        [rate] = await connection.fetch(SQL["effects_per_s"])
        await connection.execute(SQL["vacuum_tasks"])
        before_mb, began_s = service.resident_mb(), time.monotonic()
        keys = await service.suspended(count)
        suspended_s, added_mb = time.monotonic() - began_s, service.resident_mb() - before_mb
        await connection.execute(SQL["vacuum_tasks"])
        held, (open_connections, busy) = (await service.tasks())["running"], await service.connections()
        began_cpu_s = service.cpu_s()
        at_s = await service.resumed(keys, EVENTS_PER_S)
        took_cpu_s = service.cpu_s() - began_cpu_s
        rows = await connection.fetch(SQL["effect_times"])
    delays_ms = [(row["done_at"].timestamp() - at_s[row["flow_id"]]) * 1e3 for row in rows]
    return {
        "resumes_per_s": round(rate["per_s"]),
        "resume_p50_ms": round(percentile(delays_ms, 50)),
        "resume_p99_ms": round(percentile(delays_ms, 99)),
        "resume_max_ms": round(max(delays_ms)),
        "resume_cpu_us": round(took_cpu_s / count * 1e6),
        "waits_per_s": round(count / suspended_s),
        "waiting_flows": count,
        "waiting_held_tasks": held,
        "waiting_connections": open_connections,
        "waiting_busy_connections": busy,
        "waiting_added_mb": round(added_mb, 1),
    }


async def round_trips(turns: Turns, postgres: LocalPostgres, connection: Any) -> dict[str, Any]:
    """Count the round trips of a step, of a flow without steps, of a wait and of a resume; not timed."""
    with counting_proxy(postgres.port) as (port, counter):

        async def asked(flows: int, steps: int) -> int:
            before = counter.asked
            await turns.took("relaybox", "insert", flows, steps, POSTGRES_PORT=str(port))
            return counter.asked - before

        # Differences of two runs, in which the opening of connections cancels out. The warm-up flows cancel
        # out in the figure of a flow. In the figure of a step they count: they get twice the steps, too.
        flows = CONCURRENCY + WARM_UP_FLOWS
        few, more_steps = await asked(CONCURRENCY, STEPS), await asked(CONCURRENCY, 2 * STEPS)
        more_flows = await asked(2 * CONCURRENCY, STEPS)
        per_step = (more_steps - few) / (flows * STEPS)
        with Service.running(connection, POSTGRES_PORT=str(port)) as service:
            await service.resumed(await service.suspended(ROUND_TRIP_FLOWS), None)
            before = counter.asked
            keys = await service.suspended(ROUND_TRIP_FLOWS)
            wait, before = counter.asked - before, counter.asked
            await service.resumed(keys, None)
            resume = counter.asked - before
    return {
        "round_trips_per_step": round(per_step, 2),
        "round_trips_per_flow": round((more_flows - few) / CONCURRENCY - STEPS * per_step, 2),
        "round_trips_per_wait": round(wait / ROUND_TRIP_FLOWS, 2),
        "round_trips_per_resume": round(resume / ROUND_TRIP_FLOWS, 2),
    }


async def main(parts: list[str], rounds: int, *, short: bool) -> None:
    """Run *parts*, and print the figures."""
    figures: dict[str, Any] = {}
    async with servers(kafka=True) as postgres, connected(postgres) as connection:
        for name in ("create_effects", "grant_effects", "grant_create"):
            await connection.execute(SQL[name])
        await ensure_topics(load_settings(KafkaSettings), [TOPIC], partitions=PARTITIONS)
        turns = Turns(connection, peers_home(fetch=not short))
        if "waiting" in parts:
            figures |= await waiting(connection, WAITING_SHORT if short else WAITING)
        if "steps" in parts:
            figures |= await steps(turns, FLOWS_SHORT if short else FLOWS, rounds)
        if "round_trips" in parts:
            figures |= await round_trips(turns, postgres, connection)
    title = f"Flows: {STEPS} steps each, {CONCURRENCY} at a time"
    show(title, [(name, f"{value:,}") for name, value in figures.items()], figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--part", choices=PARTS, action="append", help="part to run; may be repeated; by default all"
    )
    parser.add_argument(
        "--short", action="store_true", help="one round, 400 waiting flows; DBOS only if installed"
    )
    given = parser.parse_args()
    asyncio.run(main(given.part or list(PARTS), 1 if given.short else given.rounds, short=given.short))
