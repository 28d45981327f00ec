"""Replay dead letters on an operator's request while the group handles new events."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from _bare import event_of, produce
from _consuming import EVENT_TYPE
from _load import percentile
from confluent_kafka import Producer
from pydantic_core import to_json
from relay_latency import envelope_of
from relaybox.db import load_queries
from relaybox.settings import KafkaSettings, load_settings
from relaybox.topics import ensure_topics

__all__ = ("replay",)

SQL: Final = load_queries("statements", "replay.sql")
PARTITIONS: Final = 8
LIVE_PER_S: Final = 200
LIVE_KEYS: Final = 200
#: Number of keys of the dead letters, by the prefix of the figures; None: each letter has a key of its own.
SHAPES: Final[dict[str, int | None]] = {"one_key": 1, "keys_200": 200, "own_keys": None}
_LOOK_S: Final = 0.25
_READY_S: Final = 60.0
_SETTLE_S: Final = 2.0


class LiveEvents:
    """Produce events of keys without dead letters at a steady rate, each at its scheduled time."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        #: Time at which each event was produced, in seconds since 1970, by the id of the event.
        self.produced_at_s: dict[UUID, float] = {}
        self._stopping = threading.Event()

    @classmethod
    @contextmanager
    def flowing(cls, topic: str) -> Generator["LiveEvents"]:
        """Produce events during a ``with`` block."""
        events = cls(topic)
        thread = threading.Thread(target=events._run)
        thread.start()
        try:
            yield events
        finally:
            events._stopping.set()
            thread.join()

    def _run(self) -> None:
        # Without a linger: the delay of an event counts from its production.
        producer = Producer({**load_settings(KafkaSettings).client_config(), "linger.ms": 0, "log_level": 0})
        began_s, number = time.monotonic(), 0
        while not self._stopping.wait(max(0.0, began_s + number / LIVE_PER_S - time.monotonic())):
            key = f"live-{number % LIVE_KEYS}"
            envelope = envelope_of(key)
            attributes = (envelope["event_id"], EVENT_TYPE, envelope["timestamp"], key)
            row = (None, self._topic, key, to_json(envelope).decode(), *attributes)
            self.produced_at_s[UUID(envelope["event_id"])] = time.time()
            produce(producer, event_of((*row, envelope["correlation_id"], "api-gateway")))
            producer.poll(0)
            number += 1
        producer.flush()


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """Rate of the effects of live events in a period, and 99th percentile of their delays."""

    per_s: float
    p99_ms: float


class Scene:
    """The letters of one group, with a consumer and live events."""

    def __init__(self, connection: Any, shape: str, letters: int) -> None:
        self._connection = connection
        self._letters = letters
        self._keys = SHAPES[shape] or letters
        self.topic, self.group = f"bench-replay-{shape}", f"bench-replay-{shape}"

    async def park(self) -> None:
        """Create the topic, and park the letters."""
        await ensure_topics(load_settings(KafkaSettings), [self.topic], partitions=PARTITIONS)
        event = to_json(envelope_of("KEY") | {"event_id": "EVENT_ID"}).decode()
        await self._connection.execute(SQL["empty_letters"])
        await self._connection.execute(
            SQL["park_letters"], self.group, self.topic, self._letters, self._keys, PARTITIONS, event
        )
        await self._connection.execute(SQL["vacuum_letters"])

    async def now(self) -> datetime:
        """Return the time by PostgreSQL's clock."""
        [row] = await self._connection.fetch(SQL["now"])
        return row["at"]

    async def wait_for_live_effects(self) -> None:
        """Wait until the consumer handles live events, and 2 s more."""
        async with asyncio.timeout(_READY_S):
            while not await self._connection.fetch(SQL["live_effects"]):  # noqa: ASYNC110 - no signal of it
                await asyncio.sleep(_LOOK_S)
        await asyncio.sleep(_SETTLE_S)

    async def request(self) -> float:
        """Let an operator request the replay of all letters; return the seconds of the command."""
        program = [str(Path(sys.executable).with_name("relaybox")), "dead-letters", "replay"]
        began_s = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *program, "--group", self.group, "--yes", stdout=subprocess.DEVNULL
        )
        if await process.wait():
            raise SystemExit(f"`relaybox dead-letters replay` ended with exit code {process.returncode}")
        return time.monotonic() - began_s

    async def replayed(self, consumer: subprocess.Popen[bytes], limit_s: float) -> datetime:
        """Wait until each letter is replayed, once and in order; return the time of the last replay."""
        until_s = time.monotonic() + limit_s
        while (left := (await self._connection.fetch(SQL["unresolved"]))[0]["letters"]) > 0:
            if consumer.poll() is not None or time.monotonic() > until_s:
                raise SystemExit(f"{left} letters not replayed in {limit_s:g} s; consumer: {consumer.poll()}")
            await asyncio.sleep(_LOOK_S)
        [row] = await self._connection.fetch(SQL["replayed"])
        if row["missing"] or row["reordered"]:
            raise SystemExit(f"{row['missing']} letters without an effect, {row['reordered']} out of order")
        return row["last_at"]

    async def flow(self, live: LiveEvents, since: datetime, until: datetime) -> Flow:
        """Return the rate of live events' effects in a period, and the p99 delay of events produced in it."""
        handled_at_s = {
            row["event_id"]: row["handled_at"].timestamp()
            for row in await self._connection.fetch(SQL["live_effects"])
        }
        since_s, until_s = since.timestamp(), until.timestamp()
        delays_s = [
            handled_at_s[event_id] - produced_at_s
            for event_id, produced_at_s in live.produced_at_s.items()
            if since_s <= produced_at_s < until_s
        ]
        return Flow(
            per_s=sum(since_s <= at_s < until_s for at_s in handled_at_s.values()) / (until_s - since_s),
            p99_ms=percentile(delays_s, 99) * 1_000,
        )

    async def wait_for_effects(self, live: LiveEvents) -> None:
        """Wait until each live event has taken effect; the caller has stopped producing live events."""
        async with asyncio.timeout(_READY_S):
            while len(await self._connection.fetch(SQL["live_effects"])) < len(live.produced_at_s):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_S)


@contextmanager
def consumer(topic: str, group: str) -> Generator[subprocess.Popen[bytes]]:
    """Run Relaybox's consumer during a ``with`` block."""
    program = Path(__file__).with_name("_consuming.py")
    process = subprocess.Popen([sys.executable, str(program), "relaybox", topic, group], env=os.environ)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def replay(connection: Any, letters: int, *, before_s: float, limit_s: float) -> dict[str, Any]:
    """Replay *letters* letters of one key, of 200 keys, and of a key each; return the figures.

    Args:
        connection: A connection of the superuser.
        letters: Number of letters.
        before_s: How long the rate of live events is measured before the request.
        limit_s: The benchmark fails if the letters are not replayed within this time.
    """
    figures: dict[str, Any] = {}
    for shape in SHAPES:
        scene = Scene(connection, shape, letters)
        await scene.park()
        with consumer(scene.topic, scene.group) as process:
            with LiveEvents.flowing(scene.topic) as live:
                await scene.wait_for_live_effects()
                begin = await scene.now()
                await asyncio.sleep(before_s)
                request = await scene.now()
                command_s = await scene.request()
                end = await scene.replayed(process, limit_s)
            await scene.wait_for_effects(live)
            before, during = await scene.flow(live, begin, request), await scene.flow(live, request, end)
        figures |= {
            f"{shape}_live_ratio": round(during.per_s / before.per_s, 2),
            f"{shape}_letters_replayed_per_s": round(letters / (end - request).total_seconds()),
            f"{shape}_live_p99_ms": round(during.p99_ms),
            f"{shape}_live_before_p99_ms": round(before.p99_ms),
            f"{shape}_command_s": round(command_s, 1),
        }
    return figures
