"""Lease lanes (slices of keys, each owned by one relay) in PostgreSQL; failures and pauses of lanes."""

import asyncio
import os
import socket
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from relaybox.db import DatabaseError, DedicatedConnection, load_queries, map_service_errors
from relaybox.outbox import OUTBOX_CHANNEL, channel_of
from relaybox.periodic import wait_at_most
from relaybox.relay._errors import link_pause_s
from relaybox.relay._postgres import Connections, Lane, LowWatermark, fetch_rows, use_partial_indexes
from relaybox.relay._statistics import RelaySignal, Statistics
from relaybox.settings import RelaySettings
from relaybox.signals import OnSignal

__all__ = (
    "LANES_CHANNEL",
    "LaneFailures",
    "Lanes",
    "LeaseHeartbeat",
    "Report",
    "TransactionPause",
    "fair_share",
    "surplus_of",
)

#: NOTIFY channel for released lanes, new lanes and new relays: a relay that receives a notification sends a
#: heartbeat at once.
LANES_CHANNEL: Final = "relaybox_lanes"
_SQL: Final = load_queries(__package__ or "relaybox.relay", "relay.sql")
#: A lane that has failed for this time is reported as stuck. A shorter time is normal, because a takeover
#: after a kill takes up to 10 s.
_STUCK_S: Final = 10.0
#: An open lane without a failure for this time is not stuck, even if nothing was published.
_QUIET_S: Final = 15.0
#: Heartbeats per lease: a relay keeps its lanes if two consecutive heartbeats fail.
_RENEWALS_PER_LEASE: Final = 3
#: A transaction with at most this number of rows is small.
_FEW_ROWS: Final = 8
#: Time from the start of a small transaction to the start of the next, so that the next has more rows. A
#: transaction costs the brokers the same whatever its size: at 600 events a second, one transaction per
#: event overloads the brokers.
_START_TO_START_S: Final = 0.025
#: Time from the end of a transaction to the start of the next. The coordinator confirms a commit before it
#: has written the control records of the transaction. Until then, the coordinator rejects the next
#: transaction (CONCURRENT_TRANSACTIONS). librdkafka repeats the rejected request every 20 ms, which keeps the
#: brokers busy.
_END_TO_START_S: Final = 0.008
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """State that a relay writes to ``relay_members`` with each heartbeat, for operators."""

    #: State of the relay's circuit breaker.
    breaker: str
    #: Number of rows that the relay has marked SENT since its start.
    published_total: int
    #: Why the relay publishes only some of its rows: one sentence per partition or lane, 20 at most.
    troubles: Sequence[str]


#: Report of a relay that has just started.
NOTHING_TO_REPORT: Final = Report(breaker="closed", published_total=0, troubles=())


def fair_share(lanes: int, relays: int) -> int:
    """Return the number of lanes that each relay may own: *lanes* divided by *relays*, rounded up."""
    assert relays >= 1
    return -(-lanes // relays)


def surplus_of(owned: list[int], share: int) -> frozenset[int]:
    """Return the *owned* lanes to release so that *share* remain: those with the highest numbers."""
    return frozenset(sorted(owned)[share:])


class Lanes:
    """The lanes of one relay; :meth:`renew` is called three times per lease.

    Invariant: the relay publishes from a lane only while the lease is valid by this process's clock, and
    releases a lane only when none of its rows is in flight. Therefore two relays publish from the same lane
    only if one of them was frozen, or disconnected from PostgreSQL, with rows in flight. PostgreSQL then
    rejects marks of that relay by the epoch, and with exactly-once delivery Kafka rejects its transactions.
    """

    def __init__(self, *, lease_s: float, delivery: str = "exactly-once") -> None:
        #: Name in ``relay_lanes`` and ``relay_members``; new for each session, so that a restarted relay is
        #: another owner.
        self.owner = f"relay-{uuid.uuid4()}"
        #: Number of running relays, including this one.
        self.members = 1
        self._lease_s = lease_s
        self._delivery = delivery
        self._owned: dict[int, Lane] = {}
        self._surplus: frozenset[int] = frozenset()
        #: Lanes with rows that are in flight or not recorded; they are not released.
        self._busy: frozenset[int] = frozenset()
        #: Whether more lanes are requested than exist. The publish loop then splits lanes when no row is in
        #: flight.
        self.split_wanted = False
        self._joined = False

    @property
    def busy(self) -> frozenset[int]:
        """Lanes with rows that are in flight or not recorded."""
        return self._busy

    def set_busy(self, lanes: frozenset[int]) -> None:
        """Set the *lanes* with rows that are in flight or not recorded, which are not released."""
        self._busy = lanes

    def postpone_split(self) -> None:
        """Do not split lanes before the next heartbeat."""
        self.split_wanted = False

    def usable(self) -> list[Lane]:
        """Return the owned lanes from which the relay may publish now, in order of their numbers."""
        now = time.monotonic()
        lanes = [
            lane
            for lane in self._owned.values()
            if lane.lane not in self._surplus and now < lane.valid_until_s
        ]
        return sorted(lanes, key=lambda lane: lane.lane)

    def owned(self) -> tuple[int, ...]:
        """Return the numbers of all owned lanes, including those to be released."""
        return tuple(sorted(self._owned))

    def has_expired_lease(self) -> bool:
        """Return whether the lease of an owned lane has ended by this process's clock."""
        now = time.monotonic()
        return any(now >= lane.valid_until_s for lane in self._owned.values())

    def has_idle_surplus(self) -> bool:
        """Return whether :meth:`renew` can release a lane: one above the relay's share that is not busy."""
        return bool(self._surplus & self._owned.keys() - self._busy)

    async def renew(self, connection: DedicatedConnection, report: Report = NOTHING_TO_REPORT) -> bool:
        """Renew leases, release lanes above the fair share, and take lanes below the share.

        Args:
            connection: A connection outside a transaction.
            report: State to show to operators.

        Returns:
            Whether the owned lanes or their epochs changed.
        """
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
        """Split each of *lanes*, which this relay owns, in two; return the numbers of the new lanes.

        No row of *lanes* may be in flight, or published and not marked: otherwise the owner of a new lane
        would publish the row again, or a later row first (G21).
        """
        self.split_wanted = False
        numbers, epochs = [lane.lane for lane in lanes], [lane.epoch for lane in lanes]
        rows = await fetch_rows(connection, _SQL["split_lanes"], numbers, epochs, LANES_CHANNEL)
        return [row["lane"] for row in rows]

    async def release_all(self, connection: DedicatedConnection) -> None:
        """Release all lanes when the relay stops, so that others need not wait until the leases end."""
        await fetch_rows(connection, _SQL["remove_member"], self.owner)
        if self._owned:
            await self._release(connection, list(self._owned.values()))

    async def _renew_leases(self, connection: DedicatedConnection, report: Report) -> Mapping[str, Any]:
        """Renew membership and leases, and return the columns of the query ``renew_lanes``.

        This is one statement, because heartbeats are the main cost of an idle relay.
        """
        # Sorted, because statements that mark rows lock lanes in this order: another order could deadlock.
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


@dataclass(kw_only=True, slots=True)
class _LaneFailure:
    since_s: float
    last_s: float
    reason: str
    failures: int = 0
    pause_until_s: float = 0.0

    def failed_again_lately(self, now_s: float) -> bool:
        return self.last_s - self.since_s >= _STUCK_S and now_s - self.last_s < _QUIET_S


class LaneFailures:
    """Failures of takeovers and batches by lane, and the growing pauses between a lane's attempts."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Create the object without failures; *clock* returns seconds, as ``time.monotonic``."""
        self._clock = clock
        self._lanes: dict[int, _LaneFailure] = {}

    def record(self, lane: int, reason: str, *, at_least_s: float = 0.0) -> float:
        """Record a failure of *lane*; return the seconds until the next attempt, at least *at_least_s*."""
        now_s = self._clock()
        trouble = self._lanes.setdefault(lane, _LaneFailure(since_s=now_s, last_s=now_s, reason=reason))
        trouble.failures += 1
        trouble.last_s, trouble.reason = now_s, reason
        pause_s = max(link_pause_s(trouble.failures), at_least_s)
        trouble.pause_until_s = now_s + pause_s
        return pause_s

    def clear(self, lane: int) -> None:
        """Remove the failures of *lane*, because it has published a batch."""
        self._lanes.pop(lane, None)

    def forget_others(self, lanes: Collection[int]) -> None:
        """Remove the failures of all lanes except *lanes*, which this relay owns."""
        for lane in self._lanes.keys() - set(lanes):
            del self._lanes[lane]

    def may_retry(self, lane: int) -> bool:
        """Return whether the pause of *lane* is over."""
        trouble = self._lanes.get(lane)
        return trouble is None or self._clock() >= trouble.pause_until_s

    def stuck(self, open_lanes: Collection[int]) -> dict[int, str]:
        """Return the reason of the last failure, by lane number, of each lane that is stuck.

        A lane that is not open is stuck if its first failure was at least 10 s ago. An open lane is stuck if
        there are at least 10 s between its first and its last failure, and the last was less than 15 s ago.

        Args:
            open_lanes: Numbers of lanes whose takeover is complete.
        """
        now_s = self._clock()
        return {
            lane: trouble.reason
            for lane, trouble in sorted(self._lanes.items())
            if now_s - trouble.since_s >= _STUCK_S
            and (lane not in open_lanes or trouble.failed_again_lately(now_s))
        }


@dataclass(kw_only=True, slots=True)
class TransactionPause:
    """Time at which the next transaction of a lane may start; ignored while there is a backlog."""

    #: Earliest start, by ``time.monotonic()``.
    until_s: float = 0.0

    def note_start(self, now_s: float, *, rows: int) -> None:
        """Delay the next transaction until 25 ms after this start if this one has at most 8 *rows*."""
        if rows <= _FEW_ROWS:
            self.until_s = now_s + _START_TO_START_S

    def note_end(self, now_s: float) -> None:
        """Delay the next transaction until 8 ms after this end."""
        self.until_s = max(self.until_s, now_s + _END_TO_START_S)

    def remaining_s(self, now_s: float) -> float:
        """Return the seconds until the next transaction may start, 0 if it may start now."""
        return max(0.0, self.until_s - now_s)


class LeaseHeartbeat:
    """Renew the leases of the lanes, and wake the publish loop when notifications arrive.

    The heartbeat has its own connection, so that it never waits for a batch. Notifications arrive on the same
    connection, which stays open between heartbeats.
    """

    def __init__(
        self,
        connections: Connections,
        settings: RelaySettings,
        lanes: Lanes,
        on_signal: OnSignal[RelaySignal],
        statistics: Callable[[], Statistics],
    ) -> None:
        """Create the heartbeat without connecting; each heartbeat reports *statistics* to operators."""
        self._statistics = statistics
        self._connections = connections
        self._settings = settings
        self._lanes = lanes
        self._signal = on_signal
        #: Set when there may be rows to publish; the publish loop clears the event before it reads rows.
        self.work_available = asyncio.Event()
        #: Set to request a heartbeat at once, when this relay can release a lane, or when another relay has
        #: joined, released lanes or created lanes.
        self.renew_now = asyncio.Event()
        #: ``seq`` at which polls of the outbox begin; the publish loop advances it.
        self.low_watermark = LowWatermark()

    async def run(self) -> None:
        """Send heartbeats until cancelled; while PostgreSQL is unavailable, retry and let the leases end."""
        failures = 0
        while True:
            try:
                async with self._connections.connected() as connection:
                    await use_partial_indexes(connection)
                    await self._listen(connection)
                    self.work_available.set()  # notifications sent before LISTEN are lost
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
                self.work_available.set()  # the loop may use the renewed lanes again, or must split lanes
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
