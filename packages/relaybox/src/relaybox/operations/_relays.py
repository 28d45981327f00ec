"""Read the state of relays and lanes, and change lanes for an operator."""

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

#: Largest number of lanes; a constraint of ``relay_origin`` has the same limit.
LANES_MAX: Final = 1_024
#: Largest number of rows that a :class:`Status` counts in one state, which bounds the cost of the queries.
BACKLOG_ROWS_MAX: Final = 100_000
_SQL: Final = load_queries(__package__ or "relaybox.operations", "relays.sql")


@dataclass(frozen=True, kw_only=True, slots=True)
class RelayStatus:
    """State of a relay at its last heartbeat."""

    #: Name of the relay, unique for each start.
    name: str
    #: Host and process id.
    place: str
    #: ``exactly-once`` or ``at-least-once``.
    delivery: str
    #: State of the relay's circuit breaker for Kafka: closed, open or half-open.
    breaker: str
    started_at: datetime
    #: Rows that the relay marked SENT since its start.
    published_total: int
    #: Seconds until the relay's lease ends without another heartbeat; negative for an expired lease.
    lease_s: float
    #: Number of lanes that the relay owns.
    lanes: int
    #: Reasons why some rows are not published, one per partition or lane, 20 at most.
    troubles: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneStatus:
    """A lane: a range of key hashes that one relay owns."""

    #: Number of the lane.
    lane: int
    #: First and last key hash of the lane.
    hash_min: int
    hash_max: int
    #: Name of the relay that owns the lane; None without an owner.
    owner: str | None
    #: Number of times that a relay has taken the lane over; used as fencing token.
    epoch: int
    #: Why no relay publishes from the lane; None if there is no fault.
    fault: str | None
    #: Seconds until the owner's lease ends; None without an owner.
    lease_s: float | None
    #: Number of the lane's rows among the first 100,000 PENDING rows of the outbox.
    pending: int
    #: Age of the oldest of these rows in seconds; None if there are none.
    oldest_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """State of relays, lanes and backlog at one time."""

    #: Time of the query, by PostgreSQL's clock.
    at: datetime
    relays: Sequence[RelayStatus]
    lanes: Sequence[LaneStatus]
    #: Requested number of lanes; higher than ``len(lanes)`` while relays split their lanes.
    lanes_wanted: int
    #: Numbers of rows by state, each counted up to 100,000; ``pending`` includes ``retrying``.
    pending: int
    retrying: int
    failed: int
    skipped: int
    #: Age of the PENDING row with the lowest ``seq`` in seconds; None if there is no PENDING row.
    oldest_pending_s: float | None


async def relay_status(db: Executor) -> Status:
    """Return the state of relays, lanes and backlog.

    Raises:
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    relays = await db.fetch(_SQL["relays"])
    lanes = await db.fetch(_SQL["lanes"], BACKLOG_ROWS_MAX)
    [backlog] = await db.fetch(_SQL["backlog"], BACKLOG_ROWS_MAX)
    return Status(
        relays=[RelayStatus(**row) for row in relays], lanes=[LaneStatus(**row) for row in lanes], **backlog
    )


def published_per_s(before: Status, after: Status) -> float:
    """Return the number of rows per second that the relays marked SENT between *before* and *after*.

    If a relay is only in *after*, all rows that it has published count. Rows that a relay published between
    its last heartbeat and its end are not counted. If *after* is not later than *before*, the result is 0.
    """
    known = {relay.name: relay.published_total for relay in before.relays}
    rows = sum(relay.published_total - known.get(relay.name, 0) for relay in after.relays)
    elapsed_s = (after.at - before.at).total_seconds()
    return max(rows, 0) / elapsed_s if elapsed_s > 0 else 0.0


def check_lane_count(lanes: int, wanted: int) -> None:
    """Check that *lanes* lanes can become *wanted* lanes by splitting, which doubles their number.

    Raises:
        LanesRefused: *wanted* is not *lanes* times a power of two, or is above 1,024.
    """
    factor, rest = divmod(wanted, lanes)
    if wanted < lanes:
        raise LanesRefused(
            f"the number of lanes is {lanes} and cannot be reduced to {wanted}; request {lanes} or more"
        )
    if rest or factor & (factor - 1) or wanted > LANES_MAX:
        choices = [lanes * 2**power for power in range(1, 8) if lanes * 2**power <= LANES_MAX]
        remedy = (
            f"request one of: {', '.join(map(str, choices))}" if choices else "no more lanes are possible"
        )
        raise LanesRefused(
            f"{lanes} lanes cannot become {wanted}: the number of lanes can only be doubled, once or more, "
            f"up to {LANES_MAX}; {remedy}"
        )


async def request_lanes(db: Executor, wanted: int, *, by: str, reason: str | None = None) -> int:
    """Request *wanted* lanes, and return the number of lanes that was requested before.

    Running relays split their lanes until *wanted* lanes exist. They need no restart, and no event is lost or
    reordered. If *wanted* lanes are requested already, nothing changes and no action is recorded.

    Args:
        db: A connection outside a transaction.
        wanted: The new number of lanes: the number requested before, times 1, 2, 4, …, and at most 1,024.
        by: Name of the operator, for the record of the action.
        reason: Reason, for the record of the action.

    Raises:
        LanesRefused: *wanted* is not such a number.
        RetryTransaction: Another operator changed the requested number of lanes at the same time.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    [origin] = await db.fetch(_SQL["lanes_wanted"])
    before: int = origin["lanes_wanted"]
    check_lane_count(before, wanted)
    if before != wanted and not await db.fetch(
        _SQL["request_lanes"], before, wanted, by, reason, LANES_CHANNEL
    ):
        raise RetryTransaction(
            "another operator changed the number of lanes; check `relaybox relay status`, then try again"
        )
    return before


async def accept_marker(db: Executor, lane: int, marker: UUID, *, by: str, reason: str) -> None:
    """Let relays publish again from a lane that they stopped because the database does not know *marker*.

    The marker is the id of the lane's last batch in Kafka. The database has no record of this batch, so
    relays cannot find out which PENDING rows of the lane are on their topics already. After this call relays
    publish all PENDING rows of the lane. The operator thereby accepts that readers may get duplicates.

    Args:
        db: A connection outside a transaction.
        lane: Number of the lane.
        marker: The id that the text of the lane's fault contains; the UUID 0 if Kafka has no marker.
        by: Name of the operator, for the record of the action.
        reason: Reason, for the record of the action.

    Raises:
        MarkerRefused: The lane has no fault, or its fault names another marker.
        RetryTransaction: The fault of the lane changed at the same time.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    found = await db.fetch(_SQL["lane_fault"], lane)
    fault: str | None = found[0]["fault"] if found else None
    if fault is None:
        raise MarkerRefused(f"lane {lane} has no fault; `relaybox relay status` lists lanes with a fault")
    if str(marker) not in fault.lower():
        raise MarkerRefused(
            f"the fault of lane {lane} names another marker than {marker}; repeat the command with the "
            f"marker in this text: {fault}"
        )
    arguments = (lane, fault, marker, by, reason, [LANES_CHANNEL, OUTBOX_CHANNEL])
    if not await db.fetch(_SQL["accept_marker"], *arguments):
        raise RetryTransaction(
            f"the fault of lane {lane} has changed; check `relaybox relay status`, then try again"
        )
