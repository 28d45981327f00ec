"""A group of consumers with their faults, the operator of its dead letters, and its state at the end."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import TopicPartition
from relaybox.db import Database, DatabaseError
from relaybox.operations import LetterSelection, replay_letters

from tests.faults.chaos._drain import retry_while_unavailable
from tests.faults.chaos._effects import Effect, Letters
from tests.faults.chaos._handlers import GROUP, TABLES, Poisoned
from tests.faults.chaos._injector import FaultHandler, ServiceFaults
from tests.faults.chaos._journal import Timeline
from tests.faults.chaos._schedule import Fault, FaultKind
from tests.faults.chaos._servers import PARTITIONS, TOPIC, ChaosServers, Connection
from tests.faults.chaos._services import ServiceSlot
from tests.faults.chaos._topic import Isolation, open_consumer

CONSUMERS: Final = 2
_KEYS: Final = 40
_POISONED_KEYS_MAX: Final = 8
#: Number of keys whose events fail from the start to the end of the faults.
_HELD_KEYS: Final = 2
#: Pause between two replays of all letters, among them those whose handler still fails.
_REPLAY_EVERY_S: Final = (3.0, 12.0)
_PAUSE_S: Final = 0.5
_STATEMENT_S: Final = 300.0
_RESPONSE_S: Final = 10.0
_POISON: Final = "INSERT INTO chaos_poison SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
_REPAIR: Final = "DELETE FROM chaos_poison WHERE key = ANY ($1::text[])"
_UNRESOLVED: Final = """
    SELECT count(*) FROM dead_letters WHERE consumer_group = $1 AND status IN ('PARKED', 'REPLAY_REQUESTED')
"""
_LETTERS: Final = """
    SELECT count(*) AS parked, count(*) FILTER (WHERE status = 'REPLAYED') AS replayed,
           count(*) FILTER (WHERE reason = 'BLOCKED') AS behind, coalesce(sum(attempts), 0)::int AS attempts,
           count(*) FILTER (WHERE reason <> 'BLOCKED' AND error_code <> $2) AS without_poison
    FROM dead_letters WHERE consumer_group = $1
"""
_EFFECTS: Final = "SELECT key, version, event_id, place FROM chaos_effects ORDER BY seq"


class ConsumerGroup:
    """Two consumers and a third that joins and leaves, with keys whose events fail for some time."""

    def __init__(self, servers: ChaosServers, timeline: Timeline, *, seed: int) -> None:
        """Describe the group; nothing runs before :meth:`start`."""
        self.keys = [f"consumed-{number}" for number in range(_KEYS)]
        #: Seconds until all letters were replayed and all messages read; None if they stalled.
        self.drain_s: float | None = None
        self._servers = servers
        self._timeline = timeline
        self._rng = random.Random(f"{seed} operator")
        self._database = Database(servers.settings(), application_name="chaos-operator")
        # In one of the two, events of several keys share a transaction.
        self._regular = [self._slot("alone", 0), self._slot("together", 1)]
        self._further = self._slot("alone", CONSUMERS)
        faults = ServiceFaults(
            self._regular,
            timeline,
            kills=FaultKind.CONSUMER_KILL,
            freezes=(FaultKind.CONSUMER_PAUSE, FaultKind.CONSUMER_FREEZE),
            restarts=FaultKind.CONSUMER_RESTART,
        )
        self.handlers: Mapping[FaultKind, FaultHandler] = {
            **faults.handlers,
            FaultKind.CONSUMER_JOIN: self._join_and_leave,
            FaultKind.CONSUMER_POISON: self._poison,
        }

    @property
    def slots(self) -> Sequence[ServiceSlot]:
        """Return all consumers, which run or not."""
        return (*self._regular, self._further)

    async def start(self) -> None:
        """Create the tables of the handlers, let the events of some keys fail, and start two consumers."""
        owner = Database(self._servers.settings().as_owner())
        async with owner.connection() as connection:
            await connection.execute(
                f"{TABLES} GRANT ALL ON chaos_effects, chaos_poison, chaos_effects_seq_seq"
                f' TO "{self._servers.settings().user}"'
            )
        await owner.close()
        connection = await self._servers.connect()
        try:
            await connection.execute(_POISON, self.keys[:_HELD_KEYS])
        finally:
            connection.terminate()
        for slot in self._regular:
            slot.start()

    async def close(self) -> None:
        """Kill the consumers and close the operator's connections."""
        for slot in self.slots:
            slot.kill()
        await self._database.close()

    async def replay_repeatedly(self) -> None:
        """Replay all letters again and again, as an impatient operator does, until cancelled."""
        while True:
            await asyncio.sleep(self._rng.uniform(*_REPLAY_EVERY_S))
            await self._request_replay()

    async def drain(self, stalled_s: float) -> None:
        """Repair all keys, and wait until all letters are replayed and all messages read.

        Give up once neither number has changed for *stalled_s* seconds.
        """
        began_s = changed_s = time.monotonic()
        before, left = None, (0, 0)
        await retry_while_unavailable(
            self._servers, lambda connection: connection.execute(_REPAIR, self.keys), _STATEMENT_S
        )
        while time.monotonic() - changed_s < stalled_s:
            await self._request_replay()
            left = (await self._unresolved(), await asyncio.to_thread(self._unread))
            if left == (0, 0):
                self.drain_s = time.monotonic() - began_s
                break
            if left != before:
                before, changed_s = left, time.monotonic()
            await asyncio.sleep(_PAUSE_S)
        self._timeline.note(
            f"consumers drained: {self.drain_s}; unresolved letters and unread messages: {left}"
        )

    async def stop(self) -> list[str]:
        """Stop the consumers; return the descriptions of stops without exit code 0 in time."""
        await asyncio.gather(*(slot.stop() for slot in self.slots))
        return [what for slot in self.slots for what in slot.failed_stops]

    async def effects(self) -> list[Effect]:
        """Return all effects."""
        rows = await retry_while_unavailable(
            self._servers, lambda one: one.fetch(_EFFECTS, timeout=_STATEMENT_S), _STATEMENT_S
        )
        return [Effect(*row) for row in rows]

    async def letters(self) -> Letters:
        """Count the group's dead letters."""
        [row] = await retry_while_unavailable(
            self._servers, lambda one: one.fetch(_LETTERS, GROUP, Poisoned.__name__), _STATEMENT_S
        )
        return Letters(**row)

    def unexpected_exits(self) -> Counter[int]:
        """Return the number of unrequested exits by exit code."""
        return sum((slot.unexpected_exits for slot in self.slots), Counter[int]())

    def _slot(self, handler: str, number: int) -> ServiceSlot:
        name = f"consumer-{number}"
        return ServiceSlot(
            name,
            ("consumer", "run", f"tests.faults.chaos._handlers:{handler}", "--topic", TOPIC),
            environment={**self._servers.service_environment(), "LOG_JSON": "true"},
            log=self._servers.directory / f"{name}.log",
            timeline=self._timeline,
        )

    async def _join_and_leave(self, fault: Fault) -> AsyncIterator[None]:
        self._further.start()
        yield
        await asyncio.sleep(fault.lasts_s)
        await self._further.stop()

    async def _poison(self, fault: Fault) -> AsyncIterator[None]:
        rng = random.Random(fault.pick)
        keys = rng.sample(self.keys[_HELD_KEYS:], rng.randint(1, _POISONED_KEYS_MAX))

        async def execute(statement: str) -> None:
            await retry_while_unavailable(
                self._servers, lambda connection: connection.execute(statement, keys), _STATEMENT_S
            )

        await execute(_POISON)
        self._timeline.note(f"poisoned {keys}")
        yield
        await asyncio.sleep(fault.lasts_s)
        await execute(_REPAIR)
        self._timeline.note(f"repaired {keys}")
        await self._request_replay(keys)

    async def _request_replay(self, keys: Sequence[str] = ()) -> None:
        """Request the replay of the parked letters of *keys*, by default of all, once PostgreSQL responds."""
        selection = LetterSelection(groups=[GROUP], keys=keys)
        while True:
            try:
                requested = await replay_letters(self._database, selection, by="chaos")
            except DatabaseError:
                await asyncio.sleep(_PAUSE_S)
                continue
            if requested.letters_total:
                self._timeline.note(f"requested the replay of {requested.letters_total} letters")
            return

    async def _unresolved(self) -> int:
        async def ask(connection: Connection) -> int:
            return await connection.fetchval(_UNRESOLVED, GROUP)

        return await retry_while_unavailable(self._servers, ask, _STATEMENT_S)

    def _unread(self) -> int:
        """Return how many offsets the group has still to commit."""
        consumer = open_consumer(self._servers.bootstrap_servers, Isolation.COMMITTED, {"group.id": GROUP})
        try:
            partitions = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
            committed: list[Any] = consumer.committed(partitions, timeout=_RESPONSE_S)
            return sum(
                consumer.get_watermark_offsets(partition, timeout=_RESPONSE_S)[1] - max(0, partition.offset)
                for partition in committed
            )
        finally:
            consumer.close()
