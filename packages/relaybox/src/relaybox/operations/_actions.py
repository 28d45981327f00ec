"""Actions of operators on the outbox. Each is one statement, so its effect and its record commit together."""

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
#: Rows that one statement changes and one record lists: limits the time of the locks and the size of the
#: record.
_STATEMENT_ROWS_MAX: Final = 1_000
#: A purge records the number of SENT rows, not the rows.
_PURGED_ROWS_MAX: Final = 20_000


class Action(StrEnum):
    """An action of an operator on rows of the outbox."""

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
    """The rows that an action would change now."""

    #: The first rows, by ``seq``.
    rows: Sequence[Row]
    #: Number of rows, including those not listed.
    rows_total: int
    #: Number of rows behind an earlier FAILED row of their key that is not selected. If retried, they wait
    #: for that row; skip does not change them.
    rows_behind_another: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedAction:
    """A recorded action of an operator."""

    id: int
    at: datetime
    actor: str
    #: ``retry``, ``skip``, ``purge``, ``lanes`` or ``accept``.
    act: str
    reason: str | None
    #: What was changed; for rows ``selection``, ``count`` and ``rows``.
    target: Mapping[str, Any]


async def preview(db: Executor, action: Action, selection: Selection, *, rows_max: int) -> Preview:
    """Return the rows of *selection* that *action* would change, at most *rows_max* of them; change nothing.

    Raises:
        SelectionEmpty: The selection names rows by id or seq, and *action* applies to none of them.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    found = await db.fetch(_PREVIEWS[action], *selection.arguments(), rows_max)
    if not found:
        _raise_if_rows_are_named(action, selection)
        return Preview(rows=(), rows_total=0, rows_behind_another=0)
    return Preview(
        rows=[row_from_record(row) for row in found],
        rows_total=found[0]["total"],
        rows_behind_another=found[0]["total_behind_another"],
    )


async def retry(db: Executor, selection: Selection, *, by: str, reason: str | None = None) -> int:
    """Put the selected FAILED rows back to PENDING, notify the relays, and return the number of rows.

    The relays publish them in the order of their key, before the rows behind them. A row behind another
    FAILED row of its key still waits for that row.

    Raises:
        SelectionEmpty: The selection names rows by id or seq, and none of them is FAILED.
        DatabaseError: PostgreSQL is unreachable or too busy; recorded actions are committed.
    """
    arguments = (by, reason, selection.as_json(), OUTBOX_CHANNEL)
    return await _run_in_steps(db, Action.RETRY, _RETRY, selection, _STATEMENT_ROWS_MAX, *arguments)


async def skip(db: Executor, selection: Selection, *, by: str, reason: str) -> int:
    """Mark the selected FAILED rows as never to be published, unblock their keys, return the number of rows.

    A row behind a FAILED row of its key that is not selected is not skipped. The gap is documented by
    ``skipped_at`` of the row, by the recorded action, and by :func:`relaybox.verify.verify`.

    Raises:
        SelectionEmpty: The selection names rows by id or seq, and none is the first FAILED row of its key.
        DatabaseError: PostgreSQL is unreachable or too busy; recorded actions are committed.
    """
    arguments = (by, reason, selection.as_json(), OUTBOX_CHANNEL)
    return await _run_in_steps(db, Action.SKIP, _SKIP, selection, _STATEMENT_ROWS_MAX, *arguments)


async def purge(db: Executor, selection: Selection, *, by: str, reason: str | None = None) -> int:
    """Remove the selected rows that are SENT or skipped, never others, and return the number of rows.

    Raises:
        SelectionEmpty: The selection names rows by id or seq, and none of them is SENT or skipped.
        DatabaseError: PostgreSQL is unreachable or too busy; recorded actions are committed.
    """
    arguments = (by, reason, selection.as_json())
    return await _run_in_steps(db, Action.PURGE, _PURGE, selection, _PURGED_ROWS_MAX, *arguments)


async def list_actions(db: Executor, *, actions_max: int) -> list[RecordedAction]:
    """Return the last *actions_max* actions of operators, newest first.

    Raises:
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    return [RecordedAction(**row) for row in await db.fetch(_SQL["list_actions"], actions_max)]


async def _run_in_steps(
    db: Executor, action: Action, statement: str, selection: Selection, rows_max: int, *arguments: str | None
) -> int:
    """Run *statement* over the selection, *rows_max* rows at a time by ``seq``."""
    rows_total, after_seq = 0, -1
    while True:
        [result] = await db.fetch(statement, *selection.arguments(), after_seq, rows_max, *arguments)
        rows_total += result["rows"]
        if result["last_seq"] is None:
            break
        after_seq = result["last_seq"]
    if not rows_total:
        _raise_if_rows_are_named(action, selection)
    return rows_total


def _raise_if_rows_are_named(action: Action, selection: Selection) -> None:
    if selection.names_rows():
        expected = {
            Action.RETRY: "FAILED",
            Action.SKIP: "the first FAILED row of its key",
            Action.PURGE: "SENT or skipped",
        }[action]
        raise SelectionEmpty(
            f"none of the named rows is {expected}; `relaybox outbox show` prints their state"
        )
