"""What operators do to the outbox. Every act is one statement: its effect and its record commit together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from relaybox.db import Executor, load_queries
from relaybox.operations._errors import SelectionEmpty
from relaybox.operations._rows import Row, row_from_record
from relaybox.operations._selection import Selection
from relaybox.outbox import OUTBOX_CHANNEL

__all__ = ("Action", "Preview", "RecordedAction", "list_actions", "preview", "purge", "retry", "skip")

_SQL: Final = load_queries(__package__ or "relaybox.operations", "outbox.sql")
_SELECTED: Final = _SQL.including("selected", all_rows=_SQL["all_rows"])
#: Rows that one statement changes and one record holds: seconds of locks, and a record that can be read.
_STATEMENT_ROWS_MAX: Final = 1_000
#: Those of a purge are counted, not listed.
_PURGED_ROWS_MAX: Final = 20_000


class Action(StrEnum):
    """What an operator can do to rows."""

    RETRY = "retry"
    SKIP = "skip"
    PURGE = "purge"


_PREVIEWS: Final = {
    Action.RETRY: _SQL.including("preview_failed", selected=_SELECTED),
    Action.SKIP: _SQL.including("preview_failed", selected=_SELECTED),
    Action.PURGE: _SQL.including("preview_done", selected=_SELECTED, all_rows=_SQL["all_rows"]),
}
_RETRY: Final = _SQL.including("retry", selected=_SELECTED)
_SKIP: Final = _SQL.including("skip", selected=_SELECTED)
_PURGE: Final = _SQL.including("purge", selected=_SELECTED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What an act would find now."""

    #: The first of the rows, by ``seq``.
    rows: Sequence[Row]
    #: How many there are, those not listed included.
    rows_total: int
    #: How many of them stand behind an earlier FAILED row of their key that is not selected: a retried one
    #: waits for it, skip leaves them as they are.
    rows_behind_another: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedAction:
    """An act on record."""

    id: int
    at: datetime
    actor: str
    #: ``retry``, ``skip``, ``purge``, ``lanes`` or ``accept``.
    act: str
    reason: str | None
    #: What it was done to; for rows ``selection``, ``count`` and ``rows``.
    target: Mapping[str, Any]


async def preview(db: Executor, act: Action, selection: Selection, *, rows_max: int) -> Preview:
    """What *act* would do to *selection*, of which at most *rows_max* rows are listed; changes nothing.

    Raises:
        SelectionEmpty: rows are named by id or seq, and none is one that *act* changes.
        DatabaseError: PostgreSQL is away or too busy.
    """
    found = await db.fetch(_PREVIEWS[act], *selection.arguments(), rows_max)
    if not found:
        _require_known_rows(act, selection)
        return Preview(rows=(), rows_total=0, rows_behind_another=0)
    return Preview(
        rows=[row_from_record(row) for row in found],
        rows_total=found[0]["total"],
        rows_behind_another=found[0]["total_behind_another"],
    )


async def retry(db: Executor, selection: Selection, *, by: str, reason: str | None = None) -> int:
    """Put the selected FAILED rows back to PENDING, untried, and wake the relays; how many there were.

    They are published in the order of their key, before the rows that wait behind them. One that
    stands behind another FAILED row of its key waits on.

    Raises:
        SelectionEmpty: rows are named by id or seq, and none of them is FAILED.
        DatabaseError: PostgreSQL is away or too busy; what is on record is done.
    """
    arguments = (by, reason, selection.as_json(), OUTBOX_CHANNEL)
    return await _run_in_steps(db, Action.RETRY, _RETRY, selection, _STATEMENT_ROWS_MAX, *arguments)


async def skip(db: Executor, selection: Selection, *, by: str, reason: str) -> int:
    """Decide that the selected FAILED rows are never published; their keys go on. How many there were.

    Only the head of a key, and then the next: a row behind a FAILED one that is not selected stays.
    The gap is told by the row (``skipped_at``), by the record, and by whoever compares outbox and topic.

    Raises:
        SelectionEmpty: rows are named by id or seq, and none of them is a FAILED head of its key.
        DatabaseError: PostgreSQL is away or too busy; what is on record is done.
    """
    arguments = (by, reason, selection.as_json(), OUTBOX_CHANNEL)
    return await _run_in_steps(db, Action.SKIP, _SKIP, selection, _STATEMENT_ROWS_MAX, *arguments)


async def purge(db: Executor, selection: Selection, *, by: str, reason: str | None = None) -> int:
    """Remove the selected rows that are SENT or skipped, never others; how many there were.

    Raises:
        SelectionEmpty: rows are named by id or seq, and none of them is SENT or skipped.
        DatabaseError: PostgreSQL is away or too busy; what is on record is done.
    """
    arguments = (by, reason, selection.as_json())
    return await _run_in_steps(db, Action.PURGE, _PURGE, selection, _PURGED_ROWS_MAX, *arguments)


async def list_actions(db: Executor, *, actions_max: int) -> list[RecordedAction]:
    """The last *actions_max* acts of operators, the newest first.

    Raises:
        DatabaseError: PostgreSQL is away or too busy.
    """
    return [RecordedAction(**row) for row in await db.fetch(_SQL["list_actions"], actions_max)]


async def _run_in_steps(
    db: Executor, act: Action, statement: str, selection: Selection, rows_max: int, *arguments: str | None
) -> int:
    """Run *statement* over the selection, *rows_max* rows at a time by ``seq``."""
    rows_total, after_seq = 0, -1
    while True:
        [done] = await db.fetch(statement, *selection.arguments(), after_seq, rows_max, *arguments)
        rows_total += done["rows"]
        if done["last_seq"] is None:
            break
        after_seq = done["last_seq"]
    if not rows_total:
        _require_known_rows(act, selection)
    return rows_total


def _require_known_rows(act: Action, selection: Selection) -> None:
    if selection.names_rows():
        wanted = {
            Action.RETRY: "FAILED",
            Action.SKIP: "the FAILED head of its key",
            Action.PURGE: "SENT or skipped",
        }[act]
        raise SelectionEmpty(
            f"none of the named rows is {wanted}; `relaybox outbox show` tells what they are"
        )
