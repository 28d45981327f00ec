"""Looking at the outbox: rows, and why keys wait."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from relaybox.db import Executor, load_queries
from relaybox.operations._errors import SelectionEmpty
from relaybox.operations._selection import Selection, State

__all__ = (
    "BlockedKey",
    "BlockedKeys",
    "BlockedLane",
    "Row",
    "RowDetails",
    "blocked_keys",
    "list_rows",
    "row_from_record",
    "show_row",
)

_SQL: Final = load_queries(__package__ or "relaybox.operations", "outbox.sql")
_ALL_ROWS: Final = _SQL["all_rows"]
_SELECTED: Final = _SQL.including("selected", all_rows=_ALL_ROWS)
_LIST: Final = _SQL.including("list_rows", selected=_SELECTED)
_SHOW: Final = _SQL.including("show_row", all_rows=_ALL_ROWS)
_BLOCKED: Final = _SQL.including("blocked_keys", selected=_SELECTED)
#: What the envelope says about an event; who did what stands in its payload and metadata.
_ENVELOPE_FIELDS: Final = (
    *("event_id", "event_type", "event_version", "aggregate_type", "aggregate_id", "version"),
    *("correlation_id", "causation_id", "timestamp"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of the outbox without its payload, which may be personal."""

    id: UUID
    seq: int
    topic: str
    #: Null for a row that no other waits for.
    key: str | None
    state: State
    event_id: str | None
    event_type: str | None
    #: Failures since it was written, or since an operator's retry.
    attempts: int
    #: Whose fault its last failure was, ``row`` or ``link``; null before the first, like the next three.
    fault: str | None
    error_class: str | None
    error_message: str | None
    failed_at: datetime | None
    created_at: datetime
    #: While it is retrying: when.
    next_attempt_at: datetime | None
    sent_at: datetime | None
    skipped_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RowDetails:
    """All that is known of one row."""

    row: Row
    #: Ids, names, versions and time of the event; nothing of what it says.
    envelope: Mapping[str, Any]
    #: The whole Kafka value, where it was asked for.
    payload: Any
    #: What operators did to it, the oldest first: ``at``, ``by``, ``act``, ``reason``.
    acts: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockedKey:
    """A key that waits, and the row it waits for."""

    head: Row
    #: Rows of the key that wait behind the head.
    behind: int
    #: Whose keys it is among; null while lanes are being split.
    lane: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockedLane:
    """A lane that nobody publishes from until an operator accepts what was found in Kafka."""

    lane: int
    fault: str
    #: PENDING rows of its keys, and since when the oldest waits.
    pending: int
    oldest: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockedKeys:
    """Everything that does not move by itself, or only after a pause."""

    #: The first of them, the longest waiting first.
    keys: Sequence[BlockedKey]
    #: How many there are, those not listed included.
    keys_total: int
    lanes: Sequence[BlockedLane]


def row_from_record(found: Mapping[str, Any]) -> Row:
    """The row in what a query of ``all_rows`` has found."""
    values: dict[str, Any] = {one.name: found[one.name] for one in fields(Row)}
    values["state"] = State(found["state"])
    return Row(**values)


async def list_rows(
    db: Executor, selection: Selection, states: Sequence[State], *, rows_max: int
) -> list[Row]:
    """At most *rows_max* selected rows in one of *states*, by ``seq``.

    Raises:
        DatabaseError: PostgreSQL is away or too busy.
    """
    rows = await db.fetch(_LIST, *selection.arguments(), [str(state) for state in states], rows_max)
    return [row_from_record(row) for row in rows]


async def show_row(db: Executor, which: UUID | int, *, with_payload: bool = False) -> RowDetails:
    """The row with that ``id``, or ``seq``.

    Raises:
        SelectionEmpty: there is none.
        DatabaseError: PostgreSQL is away or too busy.
    """
    by_id, by_seq = (which, None) if isinstance(which, UUID) else (None, which)
    found = await db.fetch(_SHOW, by_id, by_seq, with_payload, list(_ENVELOPE_FIELDS))
    if not found:
        raise SelectionEmpty(f"the outbox has no row {which}; `relaybox outbox list` shows what it has")
    [row] = found
    envelope = {name: row["envelope"][name] for name in _ENVELOPE_FIELDS if name in row["envelope"]}
    return RowDetails(row=row_from_record(row), envelope=envelope, payload=row["payload"], acts=row["acts"])


async def blocked_keys(db: Executor, selection: Selection, *, keys_max: int) -> BlockedKeys:
    """Which keys wait for a row, at most *keys_max* of them, and which lanes have a fault (G32).

    Raises:
        DatabaseError: PostgreSQL is away or too busy.
    """
    keys = await db.fetch(_BLOCKED, *selection.arguments(), keys_max)
    lanes = await db.fetch(_SQL["blocked_lanes"])
    return BlockedKeys(
        keys=[BlockedKey(head=row_from_record(row), behind=row["behind"], lane=row["lane"]) for row in keys],
        keys_total=keys[0]["total"] if keys else 0,
        lanes=[BlockedLane(**row) for row in lanes],
    )
