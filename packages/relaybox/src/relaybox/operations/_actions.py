"""Actions of operators on outbox rows.

An action runs as one or more SQL statements. Each statement changes a limited number of rows, and records the
action on these rows in ``operator_acts``.
"""

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
#: Rows per statement of retry and skip: bounds the duration of row locks and the size of the recorded action,
#: which lists the rows.
_STATEMENT_ROWS_MAX: Final = 1_000
#: Rows per statement of purge: more than for retry and skip, because SENT rows are recorded only by number.
_PURGED_ROWS_MAX: Final = 20_000


class Action(StrEnum):
    """An action of an operator on outbox rows."""

    #: FAILED rows become PENDING.
    RETRY = "retry"
    #: FAILED rows are marked as skipped: relays never publish them.
    SKIP = "skip"
    #: SENT and skipped rows are deleted.
    PURGE = "purge"


_SELECTED_FAILED: Final = _SQL.including("selected_failed", selected=_SELECTED)
_PREVIEWS: Final = {
    Action.RETRY: _SQL.including("preview_retry", selected_failed=_SELECTED_FAILED),
    Action.SKIP: _SQL.including("preview_skip", selected_failed=_SELECTED_FAILED),
    Action.PURGE: _SQL.including("preview_done", selected=_SELECTED, all_rows=_SQL["all_rows"]),
}
_RETRY: Final = _SQL.including("retry", selected=_SELECTED)
_SKIP: Final = _SQL.including("skip", selected=_SELECTED)
_PURGE: Final = _SQL.including("purge", selected=_SELECTED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """The selected rows that an action would change now."""

    #: The first of these rows, by ``seq``.
    rows: Sequence[Row]
    #: Number of these rows, including those not listed.
    rows_total: int
    #: Number of selected FAILED rows for which an earlier row of the same key is FAILED and not selected. A
    #: retry makes such a row PENDING, but the row then waits for the earlier row. A skip leaves such a row
    #: unchanged, so *rows* and *rows_total* do not include it. A purge has no such rows.
    rows_behind_another: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedAction:
    """A recorded action of an operator."""

    id: int
    #: Time of the transaction, by PostgreSQL's clock.
    at: datetime
    #: Name of the operator.
    actor: str
    #: Such as ``retry``, ``skip``, ``purge``, ``replay``, ``discard`` or ``park``.
    act: str
    reason: str | None
    #: What the action changed. An action on outbox rows has ``selection`` (the conditions), ``count`` (number
    #: of rows) and ``rows`` (the rows, but of a purge only the skipped ones).
    target: Mapping[str, Any]


async def preview(db: Executor, action: Action, selection: Selection, *, rows_max: int) -> Preview:
    """Return the rows of *selection* that *action* would change now, at most *rows_max*; change nothing.

    Raises:
        SelectionEmpty: The selection names rows by id or seq, and *action* would change none of them.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    found = await db.fetch(_PREVIEWS[action], *selection.arguments(), rows_max)
    changed = [row for row in found if not (action is Action.SKIP and row["behind_another"])]
    if not changed:
        _raise_if_rows_are_named(action, selection)
    return Preview(
        rows=[row_from_record(row) for row in changed],
        rows_total=found[0]["total"] if found else 0,
        rows_behind_another=found[0]["total_behind_another"] if found else 0,
    )


async def retry(db: Executor, selection: Selection, *, by: str, reason: str | None = None) -> int:
    """Make the selected FAILED rows PENDING, notify the relays, and return the number of rows.

    Relays publish the rows of a key by ``seq``: first the retried rows, then the rows behind them. A retried
    row behind another FAILED row of its key waits for that row.

    Args:
        db: A connection outside a transaction; each statement changes at most 1,000 rows.
        selection: The rows; rows of other states are left out.
        by: Name of the operator, for the record of the action.
        reason: Reason, for the record of the action.

    Raises:
        SelectionEmpty: The selection names rows by id or seq, and none of them is FAILED.
        DatabaseError: PostgreSQL is unreachable or too busy; earlier statements of this call are committed.
    """
    arguments = (by, reason, selection.as_json(), OUTBOX_CHANNEL)
    return await _run_in_steps(db, Action.RETRY, _RETRY, selection, _STATEMENT_ROWS_MAX, *arguments)


async def skip(db: Executor, selection: Selection, *, by: str, reason: str) -> int:
    """Mark the selected FAILED rows as never to be published, and return the number of rows.

    The rows then block their keys no longer. Rows of a key are skipped in order: a selected row stays
    FAILED if an earlier FAILED row of its key is not selected. The event stays missing on the topic. The
    column ``skipped_at``, the recorded action and :func:`relaybox.verify.verify` show this.

    Args:
        db: As in :func:`retry`.
        selection: As in :func:`retry`.
        by: As in :func:`retry`.
        reason: As in :func:`retry`.

    Raises:
        SelectionEmpty: The selection names rows by id or seq, and none is the first FAILED row of its key.
        DatabaseError: PostgreSQL is unreachable or too busy; earlier statements of this call are committed.
    """
    arguments = (by, reason, selection.as_json(), OUTBOX_CHANNEL)
    return await _run_in_steps(db, Action.SKIP, _SKIP, selection, _STATEMENT_ROWS_MAX, *arguments)


async def purge(db: Executor, selection: Selection, *, by: str, reason: str | None = None) -> int:
    """Delete the selected rows that are SENT or skipped, and return the number of rows.

    Arguments as in :func:`retry`; each statement deletes at most 20,000 rows.

    Raises:
        SelectionEmpty: The selection names rows by id or seq, and none of them is SENT or skipped.
        DatabaseError: PostgreSQL is unreachable or too busy; earlier statements of this call are committed.
    """
    arguments = (by, reason, selection.as_json())
    return await _run_in_steps(db, Action.PURGE, _PURGE, selection, _PURGED_ROWS_MAX, *arguments)


async def list_actions(db: Executor, *, actions_max: int) -> list[RecordedAction]:
    """Return the last *actions_max* recorded actions of operators, newest first.

    Raises:
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    return [RecordedAction(**row) for row in await db.fetch(_SQL["list_actions"], actions_max)]


async def _run_in_steps(
    db: Executor, action: Action, statement: str, selection: Selection, rows_max: int, *arguments: str | None
) -> int:
    """Execute *statement* repeatedly, each time for the next *rows_max* rows by ``seq``.

    The parameters of *statement* are those of *selection*, the ``seq`` after which it begins, *rows_max*, and
    *arguments*.

    Returns:
        The number of changed rows.

    Raises:
        SelectionEmpty: The selection names rows by id or seq, and *action* applies to none of them.
    """
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
