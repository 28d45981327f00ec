"""Lanes: slices of the keys that one relay owns at a time, by a lease in PostgreSQL."""

import asyncio
import os
import socket
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from relaybox.db import DatabaseError, DedicatedConnection, load_queries, map_service_errors
from relaybox.outbox import OUTBOX_CHANNEL, channel_of
from relaybox.relay._backoff import link_pause_s, wait_at_most
from relaybox.relay._postgres import Connections, Lane, LowWatermark, fetch_rows, use_partial_indexes
from relaybox.relay._statistics import RelaySignal, Statistics
from relaybox.settings import RelaySettings
from relaybox.signals import OnSignal

__all__ = (
    "LANES_CHANNEL",
    "Lanes",
    "LeaseHeartbeat",
    "Report",
    "fair_share",
    "surplus_of",
)

#: Told when a lane was given back or a relay joined: whoever hears it need not wait for its next heartbeat.
LANES_CHANNEL: Final = "relaybox_lanes"
_SQL: Final = load_queries(__package__ or "relaybox.relay", "relay.sql")
#: Two heartbeats in a row may be lost.
_RENEWALS_PER_LEASE: Final = 3
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a relay tells operators with each heartbeat."""

    #: The state of its circuit breaker.
    breaker: str
    #: Rows that it has marked SENT.
    published_total: int
    #: Why it publishes only some of its rows: a sentence for each partition and lane.
    troubles: Sequence[str]


#: Of a relay that has just started.
NOTHING_TO_REPORT: Final = Report(breaker="closed", published_total=0, troubles=())


def fair_share(lanes: int, relays: int) -> int:
    """The most lanes one of *relays* living relays may own, so that all lanes are owned."""
    assert relays >= 1
    return -(-lanes // relays)


def surplus_of(owned: list[int], share: int) -> frozenset[int]:
    """Which of the *owned* lanes to give back to own at most *share*: the last ones."""
    return frozenset(sorted(owned)[share:])


class Lanes:
    """The lanes of one relay, kept by :meth:`renew`, three times per lease.

    Invariant: a lane is published from only while its lease is valid by this process's own
    clock, and it is given back only when none of its rows is in flight. So two relays publish
    from one lane only if one was frozen, or cut off from PostgreSQL, with rows in flight; its marks are
    then refused by the epoch and, exactly once, its transactions by Kafka.
    """

    def __init__(self, *, lease_s: float, delivery: str = "exactly-once") -> None:
        # Unique per start, whatever the relay's name: a restarted one is another owner.
        self.owner = f"relay-{uuid.uuid4()}"
        self.members = 1
        self._lease_s = lease_s
        self._delivery = delivery
        self._owned: dict[int, Lane] = {}
        self._surplus: frozenset[int] = frozenset()
        #: Lanes with rows that are in flight or not recorded; not released.
        self._busy: frozenset[int] = frozenset()
        #: There are fewer lanes than are configured: the publish loop splits them when nothing is in flight.
        self.split_wanted = False
        self._joined = False

    @property
    def busy(self) -> frozenset[int]:
        """Lanes with rows that are in flight or not recorded."""
        return self._busy

    def set_busy(self, lanes: frozenset[int]) -> None:
        """Note which *lanes* have rows that are in flight or not recorded: they are not released."""
        self._busy = lanes

    def postpone_split(self) -> None:
        """Do not split before the next heartbeat."""
        self.split_wanted = False

    def usable(self) -> list[Lane]:
        """Lanes to publish from now, lowest first."""
        now = time.monotonic()
        lanes = [
            lane
            for lane in self._owned.values()
            if lane.lane not in self._surplus and now < lane.valid_until_s
        ]
        return sorted(lanes, key=lambda lane: lane.lane)

    def owned(self) -> tuple[int, ...]:
        """Numbers of all owned lanes, those to be given back included."""
        return tuple(sorted(self._owned))

    def has_expired_lease(self) -> bool:
        """Return whether a lease has ended: its lane is not usable before :meth:`renew` has assigned it."""
        now = time.monotonic()
        return any(now >= lane.valid_until_s for lane in self._owned.values())

    def has_idle_surplus(self) -> bool:
        """Whether a surplus lane has become quiet: :meth:`renew` would give it back now."""
        return bool(self._surplus & self._owned.keys() - self._busy)

    async def renew(self, connection: DedicatedConnection, report: Report = NOTHING_TO_REPORT) -> bool:
        """Renew, release and take lanes; return whether the owned ones changed. *report* is for operators."""
        before = {lane.lane: lane.epoch for lane in self._owned.values()}
        counts = await self._renew_leases(connection, report)
        self.members = counts["others"] + 1
        self.split_wanted = counts["lanes"] < counts["wanted"]
        share = fair_share(counts["lanes"], self.members)
        self._surplus = surplus_of(list(self._owned), share)
        quiet = [self._owned[lane] for lane in self._surplus - self._busy]
        if quiet:
            await self._release(connection, quiet)
        if len(self._owned) < share:
            await self._take(connection, share - len(self._owned))
        if not self._joined:
            await fetch_rows(connection, _SQL["notify_relays"], LANES_CHANNEL)
            self._joined = True
        return before != {lane.lane: lane.epoch for lane in self._owned.values()}

    async def split(self, connection: DedicatedConnection, lanes: Sequence[Lane]) -> list[int]:
        """Halve *lanes*, none of whose rows are in flight or unmarked; the numbers of the new ones.

        An owner alone can do this on a running system: it knows that nothing of the half it gives
        away was published without being marked, so whoever takes that begins behind it (G21).
        """
        self.split_wanted = False
        numbers, epochs = [lane.lane for lane in lanes], [lane.epoch for lane in lanes]
        rows = await fetch_rows(connection, _SQL["split_lanes"], numbers, epochs, LANES_CHANNEL)
        return [row["lane"] for row in rows]

    async def release_all(self, connection: DedicatedConnection) -> None:
        """Give everything back, so that the others need not wait for the leases to end."""
        await fetch_rows(connection, _SQL["remove_member"], self.owner)
        if self._owned:
            await self._release(connection, list(self._owned.values()))

    async def _renew_leases(self, connection: DedicatedConnection, report: Report) -> Mapping[str, Any]:
        """Say that this relay lives, and keep its lanes, in one statement: an idle relay does little else."""
        # In the order in which marks lock them, or one would wait for the other.
        owned = sorted(self._owned.values(), key=lambda lane: lane.lane)
        valid_until_s = time.monotonic() + self._lease_s
        numbers, epochs = [lane.lane for lane in owned], [lane.epoch for lane in owned]
        place = f"{socket.gethostname()}:{os.getpid()}"
        [counts] = await fetch_rows(
            connection,
            _SQL["renew_lanes"],
            *(self.owner, self._lease_s, numbers, epochs),
            *(place, self._delivery, report.breaker, report.published_total, report.troubles),
        )
        self._owned = {
            lane: Lane(lane=lane, epoch=self._owned[lane].epoch, valid_until_s=valid_until_s)
            for lane in counts["kept"]
        }
        return counts

    async def _take(self, connection: DedicatedConnection, wanted: int) -> None:
        valid_until_s = time.monotonic() + self._lease_s
        for row in await fetch_rows(connection, _SQL["take_lanes"], self.owner, wanted, self._lease_s):
            self._owned[row["lane"]] = Lane(lane=row["lane"], epoch=row["epoch"], valid_until_s=valid_until_s)

    async def _release(self, connection: DedicatedConnection, lanes: list[Lane]) -> None:
        for lane in lanes:
            del self._owned[lane.lane]
        numbers, epochs = [lane.lane for lane in lanes], [lane.epoch for lane in lanes]
        await fetch_rows(connection, _SQL["release_lanes"], self.owner, numbers, epochs, LANES_CHANNEL)


class LeaseHeartbeat:
    """Keeps the lanes' leases and wakes the pump; ends by cancellation only.

    A connection of its own, because a heartbeat must not wait for a batch, and LISTEN lives and
    dies with its connection.
    """

    def __init__(
        self,
        connections: Connections,
        settings: RelaySettings,
        lanes: Lanes,
        on_signal: OnSignal[RelaySignal],
        statistics: Callable[[], Statistics],
    ) -> None:
        """*statistics* returns what the heartbeat reports to operators."""
        self._statistics = statistics
        self._connections = connections
        self._settings = settings
        self._lanes = lanes
        self._signal = on_signal
        #: Set whenever there may be something to publish; the pump clears it before it looks.
        self.work_available = asyncio.Event()
        #: Set by whoever wants the next heartbeat now: a lane can be given back, another relay joined.
        self.renew_now = asyncio.Event()
        #: Where the pump's polls begin; the pump makes it rise.
        self.low_watermark = LowWatermark()

    async def run(self) -> None:
        """Keep the lanes for ever; PostgreSQL away is waited out, the leases then end by themselves."""
        failures = 0
        while True:
            try:
                async with self._connections.connected() as connection:
                    await use_partial_indexes(connection)
                    await self._listen(connection)
                    self.work_available.set()  # what was notified before LISTEN is not told again
                    async for _ in self._renewals(connection):
                        if failures:
                            _log.info("relay has reached PostgreSQL again")
                            failures = 0
            except DatabaseError as error:
                failures += 1
                if failures == 1:
                    _log.warning(
                        "relay has lost PostgreSQL, trying again",
                        error_code=error.error_code,
                        reason=str(error),
                    )
                await asyncio.sleep(link_pause_s(failures))

    async def _renewals(self, connection: DedicatedConnection) -> AsyncGenerator[None]:
        while True:
            self.renew_now.clear()
            late = self._lanes.has_expired_lease()
            now = self._statistics()
            report = Report(
                breaker=now.breaker.value, published_total=now.published_total, troubles=now.troubles
            )
            if await self._lanes.renew(connection, report):
                _log.info("relay lanes changed", lanes=self._lanes.owned(), members=self._lanes.members)
                self.work_available.set()
                self._signal(RelaySignal.LANES_CHANGED)
            if late or self._lanes.split_wanted:
                self.work_available.set()  # rows may wait for the lanes that were assigned
            yield
            await wait_at_most(self.renew_now, self._settings.lease_s / _RENEWALS_PER_LEASE)

    async def _listen(self, connection: DedicatedConnection) -> None:
        schema = self._connections.schema_name
        channels = {
            channel_of(OUTBOX_CHANNEL, schema): self.work_available,
            channel_of(LANES_CHANNEL, schema): self.renew_now,
        }

        def on_notification(_connection: Any, _pid: int, channel: str, _payload: object) -> None:
            channels[channel].set()

        with map_service_errors():
            for channel in channels:
                await connection.add_listener(channel, on_notification)
