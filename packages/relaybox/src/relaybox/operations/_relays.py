"""Relays and lanes as operators see them, and what they do to lanes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from relaybox.db import Executor, RetryTransaction, load_queries
from relaybox.operations._errors import LanesRefused, MarkerRefused
from relaybox.outbox import OUTBOX_CHANNEL
from relaybox.relay import LANES_CHANNEL

__all__ = (
    "BACKLOG_ROWS_MAX",
    "LANES_MAX",
    "LaneStatus",
    "RelayStatus",
    "Status",
    "accept_marker",
    "check_lane_count",
    "published_per_s",
    "relay_status",
    "request_lanes",
)

#: More are refused by the table as well.
LANES_MAX: Final = 1_024
#: A backlog is counted up to here; above, a look would cost more than it tells.
BACKLOG_ROWS_MAX: Final = 100_000
_SQL: Final = load_queries(__package__ or "relaybox.operations", "relays.sql")


@dataclass(frozen=True, kw_only=True, slots=True)
class RelayStatus:
    """A relay as it described itself at its last heartbeat."""

    #: Unique per start.
    name: str
    #: Host and process.
    place: str
    delivery: str
    #: Its circuit breaker: closed, open or half-open.
    breaker: str
    started_at: datetime
    #: Rows it has marked SENT since it started.
    published_total: int
    #: Seconds until it counts as dead unless it is heard of again; below 0 it does.
    lease_s: float
    #: How many lanes it holds.
    lanes: int
    #: Why it publishes only some of its rows: a sentence for each partition and lane, 20 at the most.
    troubles: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneStatus:
    """A slice of the keys' hashes."""

    lane: int
    hash_min: int
    hash_max: int
    #: The relay that holds it; null while nobody does.
    owner: str | None
    #: How often it was taken.
    epoch: int
    #: Why nobody publishes from it; null while all is well.
    fault: str | None
    #: Seconds until its owner loses it unless that renews it; null without one.
    lease_s: float | None
    #: Its PENDING rows among the first 100,000 of the outbox.
    pending: int
    #: How long the oldest of them waits; null without one.
    oldest_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """One look at the relays."""

    #: By PostgreSQL's clock.
    at: datetime
    relays: Sequence[RelayStatus]
    lanes: Sequence[LaneStatus]
    #: More than there are while owners split theirs.
    lanes_wanted: int
    #: Rows, each counted up to 100,000; those that retry are pending too.
    pending: int
    retrying: int
    failed: int
    skipped: int
    #: Age of the first PENDING row; null without one.
    oldest_pending_s: float | None


async def relay_status(db: Executor) -> Status:
    """Who relays what, and what waits.

    Raises:
        DatabaseError: PostgreSQL is away or too busy.
    """
    relays = await db.fetch(_SQL["relays"])
    lanes = await db.fetch(_SQL["lanes"], BACKLOG_ROWS_MAX)
    [backlog] = await db.fetch(_SQL["backlog"], BACKLOG_ROWS_MAX)
    return Status(
        relays=[RelayStatus(**row) for row in relays], lanes=[LaneStatus(**row) for row in lanes], **backlog
    )


def published_per_s(before: Status, after: Status) -> float:
    """Rows that the relays marked SENT per second between two looks.

    What a relay did before it was first seen counts only if it started in between; what it did
    before it left, after its last heartbeat, is not known.
    """
    known = {relay.name: relay.published_total for relay in before.relays}
    rows = sum(relay.published_total - known.get(relay.name, 0) for relay in after.relays)
    elapsed_s = (after.at - before.at).total_seconds()
    return max(rows, 0) / elapsed_s if elapsed_s > 0 else 0.0


def check_lane_count(lanes: int, wanted: int) -> None:
    """Whether *lanes* can become *wanted*: each is split in two, all of them equally often.

    Raises:
        LanesRefused: they cannot.
    """
    factor, rest = divmod(wanted, lanes)
    if wanted < lanes:
        raise LanesRefused(f"there shall be {lanes} lanes already, and lanes never become fewer")
    if rest or factor & (factor - 1) or wanted > LANES_MAX:
        choices = [lanes * 2**power for power in range(1, 8) if lanes * 2**power <= LANES_MAX]
        raise LanesRefused(
            f"{lanes} lanes can become {', '.join(map(str, choices)) or 'no more'}, not {wanted}"
        )


async def request_lanes(db: Executor, wanted: int, *, by: str, reason: str | None = None) -> int:
    """Have relays split their lanes until there are *wanted*; returns how many there should be before.

    Nothing is restarted, lost or reordered. The same number again changes nothing.

    Raises:
        LanesRefused: not by doubling, fewer than now, or more than 1,024.
        RetryTransaction: another operator changed it at the same time.
        DatabaseError: PostgreSQL is away or too busy.
    """
    [origin] = await db.fetch(_SQL["lanes_wanted"])
    before: int = origin["lanes_wanted"]
    check_lane_count(before, wanted)
    if before != wanted and not await db.fetch(
        _SQL["request_lanes"], before, wanted, by, reason, LANES_CHANNEL
    ):
        raise RetryTransaction("another operator changed the number of lanes; look again")
    return before


async def accept_marker(db: Executor, lane: int, marker: UUID, *, by: str, reason: str) -> None:
    """Have *lane*, stopped because Kafka holds *marker* and the database does not know it, go on after it.

    The rows of the batch that the marker stands for are the operator's to judge: those that are
    PENDING here will be published, again if Kafka has them.

    Raises:
        MarkerRefused: the lane has no fault, or its fault names another marker.
        DatabaseError: PostgreSQL is away or too busy.
    """
    found = await db.fetch(_SQL["lane_fault"], lane)
    fault: str | None = found[0]["fault"] if found else None
    if fault is None:
        raise MarkerRefused(f"lane {lane} has no fault; `relaybox relay status` lists the lanes that do")
    if str(marker) not in fault.lower():
        raise MarkerRefused(f"lane {lane} stopped at another marker than {marker}: {fault}")
    arguments = (lane, fault, marker, by, reason, [LANES_CHANNEL, OUTBOX_CHANNEL])
    if not await db.fetch(_SQL["accept_marker"], *arguments):
        raise RetryTransaction(f"the fault of lane {lane} has changed meanwhile; look again")
