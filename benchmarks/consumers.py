"""Measure consumers: one INSERT per event, one process, PostgreSQL with fsync, and Kafka.

The contestants read the same topic in turns, each time as a new group: Relaybox's consumer with a transaction
per event (the default) and with shared transactions, a bare confluent-kafka loop, and FastStream's Kafka
subscriber with manual acknowledgement. Further: the rate of the other keys while the handler takes 5 s for
each event of one key, or while one key is poisoned; 100,000 dead letters that are replayed while the group
handles new events; and the gain of parallel keys in one partition for a handler that waits for 10 ms.
"""

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from _backlog import connected
from _bare import event_of, new_producer, produce
from _consuming import EVENT_TYPE, SHARED_EVENTS_MAX, SQL
from _peers import peers_home
from _process import counting_proxy
from _replay import replay
from _stage import servers, show
from pydantic_core import to_json
from relay_latency import envelope_of
from relaybox.local import LocalPostgres
from relaybox.settings import KafkaSettings, PostgresSettings, load_settings
from relaybox.topics import ensure_topics
from sqlalchemy import URL

PARTS: Final = ("rates", "slow_key", "poison", "replay", "parallel", "round_trips")
#: Relaybox's contestants, by the prefix of their figures.
OURS: Final = {"": "relaybox", "shared_": "shared"}
HERE: Final = Path(__file__).parent
KEYS: Final = 200
#: Seconds that the handler takes: ``SLOW_S`` for an event of the slow key; ``WAIT_S`` for each event in the
#: part ``parallel``.
SLOW_S: Final = 5.0
WAIT_S: Final = 0.01
#: Number of keys of one partition that are processed at once; compared with one key at a time.
PARALLEL: Final = 32
#: With one key at a time, only a tenth of the events is handled; this takes about as long as all in parallel.
SEQUENTIAL_SHARE: Final = 10
ROUND_TRIP_EVENTS: Final = 500
#: Number of dead letters of one replay; seconds (``BEFORE_S``) for which the rate of new events is measured
#: before the replay; limit of a replay in seconds.
LETTERS: Final = 100_000
LETTERS_SHORT: Final = 600
BEFORE_S: Final = 20.0
BEFORE_SHORT_S: Final = 2.0
REPLAY_S_MAX: Final = 600.0
#: Poison in the handler, by the name of its figure: how the handler fails for events of the poisoned key.
HANDLER_POISON: Final = {"failing": "raise", "hanging": "hang", "exiting": "exit"}
#: Kinds of poison that a short form measures between two turns without poison.
POISON_AT_ONCE: Final = 3
_LOOK_S: Final = 0.1
_TURN_S: Final = 300.0
_GROUPS: Final = count()


def not_an_event(_envelope: Mapping[str, Any]) -> bytes:
    """Return a value that is no envelope."""
    return b"\xff not an event"


def of_900_kb(envelope: Mapping[str, Any]) -> bytes:
    """Return an event of 900 KB."""
    return to_json({**envelope, "payload": {"text": "x" * 900_000}})


def of_unknown_version(envelope: Mapping[str, Any]) -> bytes:
    """Return an event of a version that its declaration does not know."""
    return to_json({**envelope, "event_version": 2})


#: Poison in a message, by the name of its figure: function that makes the value of the poisoned key's first
#: message from an envelope.
MESSAGE_POISON: Final = {
    "not_an_event": not_an_event,
    "large": of_900_kb,
    "unknown_version": of_unknown_version,
}


class Topic:
    """A topic with *events* events of 200 keys in random order."""

    def __init__(self, name: str, events: int) -> None:
        self.name = name
        self.keys = [str(uuid4()) for _ in range(KEYS)]
        self.order = [self.keys[number % KEYS] for number in range(events)]
        random.Random(0).shuffle(self.order)

    @classmethod
    async def written(
        cls,
        name: str,
        *,
        events: int,
        partitions: int,
        poison: Callable[[Mapping[str, Any]], bytes] | None = None,
    ) -> "Topic":
        """Create the topic, and produce the events with the headers that the relay writes.

        *poison*, if given, makes the value of the first message; the key of this message is the poisoned key.
        """
        topic = cls(name, events)
        await ensure_topics(load_settings(KafkaSettings), [name], partitions=partitions)
        await asyncio.to_thread(topic._produce, poison)
        return topic

    def _produce(self, poison: Callable[[Mapping[str, Any]], bytes] | None) -> None:
        producer = new_producer()
        for number, key in enumerate(self.order):
            envelope = envelope_of(key)
            value = to_json(envelope) if poison is None or number else poison(envelope)
            attributes = (envelope["event_id"], EVENT_TYPE, envelope["timestamp"], key)
            row = (None, self.name, key, value, *attributes)
            produce(producer, event_of((*row, envelope["correlation_id"], "api-gateway")))
        producer.flush()


class Turns:
    """Run one of the compared consumers (contestants) at a time, each time in a new process."""

    def __init__(self, connection: Any, peers: Path | None) -> None:
        self._connection = connection
        self._peers = peers

    async def per_s(
        self, name: str, topic: Topic, environment: Mapping[str, str] | None = None, *, share: int = 1
    ) -> float:
        """Return a contestant's effects per second, by PostgreSQL's clock, on the keys that are not slow.

        Args:
            name: Name of the contestant, such as ``bare``.
            topic: The topic that the contestant reads, as a new consumer group.
            environment: Further environment variables of the contestant's process.
            share: The contestant is stopped when it has handled 1/*share* of the events.
        """
        environment = environment or {}
        slow_key = environment.get("BENCH_SLOW_KEY", "")
        wanted = sum(key != slow_key for key in topic.order) // share
        await self._connection.execute(SQL["empty_effects"])
        with self._started(name, topic.name, environment) as process:
            until = time.monotonic() + _TURN_S
            while await self._effects(slow_key) < wanted:
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{name} stopped or is too slow; exit code {process.poll()}")
                await asyncio.sleep(_LOOK_S)
        [row] = await self._connection.fetch(SQL["rate"], slow_key)
        return row["per_s"]

    async def _effects(self, slow_key: str) -> int:
        [row] = await self._connection.fetch(SQL["count_effects"], slow_key)
        return row["effects"]

    @contextmanager
    def _started(
        self, name: str, topic: str, environment: Mapping[str, str]
    ) -> Generator[subprocess.Popen[bytes]]:
        """Run a contestant during a ``with`` block."""
        group = f"bench-{next(_GROUPS)}"
        process = subprocess.Popen(
            [*self._program(name), topic, group], env={**os.environ, **peer_environment(), **environment}
        )
        try:
            yield process
        finally:
            process.kill()  # a clean stop would wait for the handlers; the next turn has a new group
            process.wait()

    def _program(self, name: str) -> list[str]:
        if name != "faststream":
            return [sys.executable, str(HERE / "_consuming.py"), name]
        assert self._peers is not None
        return [str(self._peers / "bin" / "python"), str(HERE / "_faststream_consumer.py")]


def peer_environment() -> dict[str, str]:
    """Return the addresses of the servers for a process without Relaybox."""
    postgres = load_settings(PostgresSettings)
    url = URL.create(
        "postgresql",
        username=postgres.user,
        password=postgres.password.get_secret_value(),
        host=postgres.host,
        port=postgres.port,
        database=postgres.db,
    )
    return {
        "PEER_DATABASE": url.render_as_string(hide_password=False),
        "PEER_KAFKA": load_settings(KafkaSettings).bootstrap_servers,
    }


async def rates(turns: Turns, events: int, rounds: int, *, faststream: bool) -> dict[str, Any]:
    """Run the contestants in turns; return their rates and ratios, which are medians over the rounds."""
    topic = await Topic.written("bench-rates", events=events, partitions=8)
    names = [*OURS.values(), "bare", *(["faststream"] if faststream else [])]
    per_s: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[:: -1 if number % 2 else 1]:
            per_s[name].append(await turns.per_s(name, topic))
    return rate_figures(per_s)


def rate_figures(per_s: Mapping[str, list[float]]) -> dict[str, Any]:
    """Return the ratios to the peers, then the rates; ``shared_`` marks figures of shared transactions."""
    peers = [name for name in per_s if name not in OURS.values()]
    figures: dict[str, Any] = {
        f"{prefix}ratio_{peer}": round(
            statistics.median(one / other for one, other in zip(per_s[name], per_s[peer], strict=True)), 2
        )
        for prefix, name in OURS.items()
        for peer in peers
    }
    names = {**{f"{prefix}events": name for prefix, name in OURS.items()}, **{name: name for name in peers}}
    return figures | {
        f"{label}_per_s": round(statistics.median(per_s[name])) for label, name in names.items()
    }


async def slow_key(turns: Turns, events: int, rounds: int) -> dict[str, Any]:
    """Return the rate of the other keys with one slow key, divided by their rate without a slow key."""
    topic = await Topic.written("bench-slow", events=events, partitions=8)
    slow = topic.order[0]
    ratios: list[float] = []
    for number in range(rounds):
        found: dict[bool, float] = {}
        for is_slow in (True, False) if number % 2 else (False, True):
            # The turn without a slow key leaves the same key out of the count, but handles its events fast.
            pause = {"BENCH_SLOW_KEY": slow, "BENCH_SLOW_S": str(SLOW_S if is_slow else 0.0)}
            found[is_slow] = await turns.per_s("relaybox", topic, pause)
        ratios.append(found[True] / found[False])
    return {"slow_key_ratio": round(statistics.median(ratios), 2)}


async def poison(turns: Turns, events: int, rounds: int, *, at_once: int) -> dict[str, Any]:
    """Return the rate of the other keys with each kind of poison, divided by their rate without poison.

    *at_once* kinds are measured, one after the other, between two turns without poison.
    """
    clean = await Topic.written("bench-poison", events=events, partitions=8)
    topics = {"": clean, **dict.fromkeys(HANDLER_POISON, clean)} | {
        kind: await Topic.written(f"bench-poison-{kind}", events=events, partitions=8, poison=value)
        for kind, value in MESSAGE_POISON.items()
    }

    async def per_s(kind: str) -> float:
        # A turn without poison leaves the same key out of the count, although its events are handled.
        environment = {"BENCH_SLOW_KEY": topics[kind].order[0], "BENCH_DECLARED": "1"}
        # For a large event the handler raises an error: the size of 900 KB alone does not make it fail.
        environment["BENCH_FAILURE"] = "raise" if kind == "large" else HANDLER_POISON.get(kind, "")
        return await turns.per_s("relaybox", topics[kind], environment)

    ratios: dict[str, list[float]] = {kind: [] for kind in topics if kind}
    await per_s("")  # warms up the servers
    for _ in range(rounds):
        # Compare with the turns before and after: the speed of the machine changes within a round.
        before = await per_s("")
        for first in range(0, len(ratios), at_once):
            kinds = list(ratios)[first : first + at_once]
            poisoned = {kind: await per_s(kind) for kind in kinds}
            after = await per_s("")
            for kind in kinds:
                ratios[kind].append(2 * poisoned[kind] / (before + after))
            before = after
    return {f"poison_{kind}_ratio": round(statistics.median(found), 2) for kind, found in ratios.items()}


async def parallel(turns: Turns, events: int, rounds: int) -> dict[str, Any]:
    """Compare parallel keys of one partition with one key at a time, for a handler that waits."""
    topic = await Topic.written("bench-parallel", events=events, partitions=1)
    wait = {"BENCH_WAIT_S": str(WAIT_S)}
    found: list[tuple[float, float]] = []
    for _ in range(rounds):
        one_key = {**wait, "BENCH_CONCURRENCY": "1"}
        sequential = await turns.per_s("relaybox", topic, one_key, share=SEQUENTIAL_SHARE)
        together = await turns.per_s("relaybox", topic, {**wait, "BENCH_CONCURRENCY": str(PARALLEL)})
        found.append((together, sequential))
    return {
        "parallel_speedup": round(statistics.median(one / other for one, other in found), 1),
        "parallel_per_s": round(statistics.median(one for one, _ in found)),
        "sequential_per_s": round(statistics.median(other for _, other in found)),
    }


async def round_trips(turns: Turns, postgres: LocalPostgres, events: int) -> dict[str, Any]:
    """Count the round trips to PostgreSQL per event, including those that open connections; not timed."""
    topic = await Topic.written("bench-round-trips", events=events, partitions=8)
    figures: dict[str, Any] = {}
    for prefix, name in OURS.items():
        with counting_proxy(postgres.port) as (port, counter):
            await turns.per_s(name, topic, {"POSTGRES_PORT": str(port)})
            figures[f"{prefix}round_trips_per_event"] = round(counter.asked / events, 2)
    return figures


@asynccontextmanager
async def stage(*, fetch: bool) -> AsyncGenerator[tuple[Turns, LocalPostgres, bool]]:
    """Run the servers, create the table of effects, and yield also whether FastStream is installed."""
    peers = peers_home(fetch=fetch)
    async with servers(kafka=True) as postgres, connected(postgres) as connection:
        await connection.execute(SQL["create_effects"])
        await connection.execute(SQL["grant_effects"])
        yield Turns(connection, peers), postgres, peers is not None


async def main(parts: list[str], events: int, rounds: int, *, short: bool) -> None:
    """Run *parts*, and print the figures."""
    figures: dict[str, Any] = {}
    async with stage(fetch=not short) as (turns, postgres, faststream):
        if "rates" in parts:
            figures |= await rates(turns, events, rounds, faststream=faststream)
        if "slow_key" in parts:
            figures |= await slow_key(turns, events, rounds)
        if "poison" in parts:
            figures |= await poison(turns, events, rounds, at_once=POISON_AT_ONCE if short else 1)
        if "replay" in parts:
            letters, before_s = (LETTERS_SHORT, BEFORE_SHORT_S) if short else (LETTERS, BEFORE_S)
            async with connected(postgres) as connection:
                figures |= await replay(connection, letters, before_s=before_s, limit_s=REPLAY_S_MAX)
        if "parallel" in parts:
            figures |= await parallel(turns, events, rounds)
        if "round_trips" in parts:
            figures |= await round_trips(turns, postgres, min(events, ROUND_TRIP_EVENTS))
    title = f"Consumers: {events:,} events, {KEYS} keys; shared: at most {SHARED_EVENTS_MAX} per transaction"
    show(title, [(name, f"{value:,}") for name, value in figures.items()], figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument(
        "--part", choices=PARTS, action="append", help="part to run; may be repeated; by default all"
    )
    parser.add_argument(
        "--short", action="store_true", help="one round of 1,500 events; FastStream only if installed"
    )
    given = parser.parse_args()
    sizes = (1_500, 1) if given.short else (given.events, given.rounds)
    asyncio.run(main(given.part or list(PARTS), *sizes, short=given.short))
