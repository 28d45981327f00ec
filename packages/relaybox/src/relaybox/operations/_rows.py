"""Query rows of the outbox and blocked keys."""

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
#: Fields of the envelope that contain no personal data; payload and metadata may contain some.
_ENVELOPE_FIELDS: Final = (
    *("event_id", "event_type", "event_version", "aggregate_type", "aggregate_id", "version"),
    *("correlation_id", "causation_id", "timestamp"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of the outbox without its payload, which may contain personal data."""

    id: UUID
    seq: int
    topic: str
    #: None for a row without a key, which blocks no other row.
    key: str | None
    state: State
    #: None if the payload was written without Relaybox and has no such field.
    event_id: str | None
    event_type: str | None
    #: Failed attempts since the row was written, or since an operator retried it.
    attempts: int
    #: Cause of the last failure, a value of :class:`Fault`; None if no attempt failed.
    fault: str | None
    #: Class, text and time of the last error; None if no attempt failed.
    error_class: str | None
    error_message: str | None
    failed_at: datetime | None
    created_at: datetime
    #: Time of the next attempt; None unless the state is ``retrying``.
    next_attempt_at: datetime | None
    sent_at: datetime | None
    skipped_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RowDetails:
    """One row with its envelope, its payload and the actions of operators on the row."""

    row: Row
    #: Fields of the envelope without personal data: ids, names, versions and time of the event.
    envelope: Mapping[str, Any]
    #: The whole envelope with the event's payload; None unless requested.
    payload: Any
    #: Actions of operators on the row, oldest first, each with ``at``, ``by``, ``act`` and ``reason``.
    acts: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockedKey:
    """A blocked key, and the row that blocks it; or a failed row without a key, which blocks no other row."""

    #: The first selected row of the key that is FAILED or waits for its next attempt.
    head: Row
    #: Number of unpublished rows of the key with a higher ``seq``, which wait for *head*.
    behind: int
    #: Number of the lane that contains the hash of the key; None if no lane does.
    lane: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockedLane:
    """A lane with a fault: no relay publishes from the lane until an operator calls ``accept_marker``."""

    lane: int
    #: Why no relay publishes from the lane.
    fault: str
    #: Number of the lane's PENDING rows.
    pending: int
    #: Time at which the oldest of these rows was written; None if there are none.
    oldest: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockedKeys:
    """Blocked keys, and lanes with a fault."""

    #: The first blocked keys, ordered by the time of the last failure of their heads, oldest first.
    keys: Sequence[BlockedKey]
    #: Number of blocked keys, including those not listed.
    keys_total: int
    lanes: Sequence[BlockedLane]


def row_from_record(record: Mapping[str, Any]) -> Row:
    """Convert a record of the query ``all_rows`` to a row."""
    values: dict[str, Any] = {field.name: record[field.name] for field in fields(Row)}
    values["state"] = State(record["state"])
    return Row(**values)


async def list_rows(
    db: Executor, selection: Selection, states: Sequence[State], *, rows_max: int
) -> list[Row]:
    """Return at most *rows_max* selected rows in one of *states*, by ``seq``.

    Raises:
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    rows = await db.fetch(_LIST, *selection.arguments(), [str(state) for state in states], rows_max)
    return [row_from_record(row) for row in rows]


async def show_row(db: Executor, id_or_seq: UUID | int, *, with_payload: bool = False) -> RowDetails:
    """Return one row of the outbox with its envelope and the actions of operators on the row.

    Args:
        db: A connection.
        id_or_seq: ``event_outbox.id`` (a UUID) or ``event_outbox.seq`` (an int) of the row.
        with_payload: Whether to return the payload, which may contain personal data.

    Raises:
        SelectionEmpty: There is no such row.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    by_id, by_seq = (id_or_seq, None) if isinstance(id_or_seq, UUID) else (None, id_or_seq)
    found = await db.fetch(_SHOW, by_id, by_seq, with_payload, list(_ENVELOPE_FIELDS))
    if not found:
        raise SelectionEmpty(f"the outbox has no row {id_or_seq}; `relaybox outbox list` shows its rows")
    [row] = found
    envelope = {name: row["envelope"][name] for name in _ENVELOPE_FIELDS if name in row["envelope"]}
    return RowDetails(row=row_from_record(row), envelope=envelope, payload=row["payload"], acts=row["acts"])


async def blocked_keys(db: Executor, selection: Selection, *, keys_max: int) -> BlockedKeys:
    """Return at most *keys_max* keys that rows of *selection* block, and all lanes with a fault (G32).

    Raises:
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    keys = await db.fetch(_BLOCKED, *selection.arguments(), keys_max)
    lanes = await db.fetch(_SQL["blocked_lanes"])
    return BlockedKeys(
        keys=[BlockedKey(head=row_from_record(row), behind=row["behind"], lane=row["lane"]) for row in keys],
        keys_total=keys[0]["total"] if keys else 0,
        lanes=[BlockedLane(**row) for row in lanes],
    )
