"""Print the results of ``relaybox outbox`` as tables and lines, or as JSON."""

from collections.abc import Sequence
from typing import Final

import typer
from pydantic_core import to_json
from rich.pretty import pprint

from relaybox.cli._output import cell_text, format_age, format_time, new_table, print_json, print_table
from relaybox.operations import (
    Action,
    BlockedKey,
    BlockedKeys,
    Preview,
    RecordedAction,
    Row,
    RowDetails,
    State,
)

__all__ = (
    "print_actions",
    "print_blocked",
    "print_details",
    "print_done",
    "print_preview",
    "print_rows",
    "print_skipped",
)

_DONE: Final = {Action.RETRY: "put back to PENDING", Action.SKIP: "skipped", Action.PURGE: "removed"}
_SEQS_SHOWN_MAX: Final = 20
_LISTS: Final = frozenset({"rows", "letters", "tasks"})
#: Note about rows with an earlier FAILED row of the same key, after the number of these rows. PURGE needs no
#: note: it removes only rows that are SENT or skipped.
_BEHIND_ANOTHER: Final = {
    Action.RETRY: "of these rows will wait for an earlier FAILED row of their key; "
    "retry or skip the earlier row, too",
    Action.SKIP: "selected FAILED rows are behind an earlier FAILED row of their key "
    "and will not be skipped; skip or retry the earlier row first",
}


def print_rows(rows: Sequence[Row]) -> None:
    """Print a table with a line per row of the outbox."""
    if not rows:
        typer.echo("no row matches")
        return
    columns = ("seq", "state", "key", "event type", "age", "attempts", "error", "topic")
    table = new_table(*columns, right=("seq", "age", "attempts"), keys=[row.key for row in rows])
    for row in rows:
        cells = (row.seq, row.state, row.key, row.event_type, format_age(row.created_at), row.attempts)
        table.add_row(*map(cell_text, (*cells, row.error_class, row.topic)))
    print_table(table)


def print_details(details: RowDetails) -> None:
    """Print one row of the outbox: a line per field and action of an operator, and the payload if given."""
    row, table = details.row, new_table("", "")
    table.show_header = False
    fields = {
        "row": f"{row.seq}, {row.id}",
        "state": row.state,
        "topic": row.topic,
        "key": row.key,
        "written": format_time(row.created_at),
        "sent": format_time(row.sent_at),
        "skipped": format_time(row.skipped_at),
        "attempts": row.attempts or None,
        "next attempt": format_time(row.next_attempt_at),
        "fault": row.fault,
        "error": row.error_class,
        "message": row.error_message,
        "failed": format_time(row.failed_at),
        **dict(details.envelope),
    }
    for name, value in fields.items():
        if value is not None:
            table.add_row(name, cell_text(value))
    for action in details.acts:
        reason = action["reason"] or "no reason given"
        table.add_row("act", cell_text(f"{action['act']} by {action['by']} at {action['at']}: {reason}"))
    print_table(table)
    if details.payload is not None:
        pprint(details.payload, expand_all=True)


def print_blocked(found: BlockedKeys) -> None:
    """Print a line per blocked key, then a line per lane with a fault."""
    if not found.keys and not found.lanes:
        typer.echo("no key is blocked")
        return
    if found.keys:
        columns = ("key", "lane", "waits for", "since", "head", "attempts", "error", "message", "behind")
        right = ("lane", "since", "head", "attempts", "behind")
        table = new_table(*columns, right=right, keys=[blocked.head.key for blocked in found.keys])
        for blocked in found.keys:
            table.add_row(*map(cell_text, _blocked_cells(blocked)))
        print_table(table)
    if found.keys_total > len(found.keys):
        typer.echo(f"… and {found.keys_total - len(found.keys)} more keys; use a larger --limit")
    for lane in found.lanes:
        typer.echo(f"lane {lane.lane} publishes nothing, {lane.pending} rows wait: {cell_text(lane.fault)}")


def _blocked_cells(blocked: BlockedKey) -> tuple[object, ...]:
    head = blocked.head
    return (
        head.key,
        blocked.lane,
        _waits_for(head),
        format_age(head.failed_at or head.created_at),
        head.seq,
        head.attempts,
        head.error_class,
        head.error_message,
        blocked.behind,
    )


def _waits_for(head: Row) -> str:
    if head.state is State.RETRYING:
        return f"the next attempt, {format_age(head.next_attempt_at)}"
    return "the broker" if head.fault == "link" else "an operator"


def print_preview(action: Action, found: Preview) -> None:
    """Print the first rows that *action* would change, their number, and how many are behind another."""
    print_rows(found.rows)
    if found.rows_total > len(found.rows):
        typer.echo(f"… and {found.rows_total - len(found.rows)} more")
    if found.rows_behind_another:
        typer.echo(f"note: {found.rows_behind_another} {_BEHIND_ANOTHER[action]}")
    if found.rows:
        typer.echo(f"dry run: {found.rows_total} would be {_DONE[action]}; add --yes to do it")


def print_done(action: Action, rows: int, as_json: bool) -> None:
    """Print how many rows *action* changed."""
    if as_json:
        typer.echo(to_json({"act": action, "done": True, "rows_total": rows}).decode())
    else:
        typer.echo(f"{rows} {_DONE[action]}" if rows else "no row matches; nothing was changed")


def print_skipped(rows: int, not_skipped: Sequence[Row], as_json: bool) -> None:
    """Print how many rows were skipped, and the selected rows that were not.

    Args:
        rows: Number of rows that were skipped.
        not_skipped: Selected rows that were not skipped, for example because their state is not FAILED.
        as_json: Whether to print JSON instead of lines.
    """
    if as_json:
        rows_left = [{"seq": row.seq, "state": row.state} for row in not_skipped]
        print_json({"act": Action.SKIP, "done": True, "rows_total": rows, "rows_left": rows_left})
        return
    print_done(Action.SKIP, rows, as_json)
    if not_skipped:
        listed = ", ".join(f"{row.seq} ({row.state})" for row in not_skipped)
        typer.echo(
            f"not skipped: {listed}; only FAILED rows can be skipped; "
            "skip or retry the earlier FAILED rows of their key first"
        )


def print_actions(found: Sequence[RecordedAction]) -> None:
    """Print a table with a line per recorded action of an operator."""
    if not found:
        typer.echo("no action of an operator is recorded")
        return
    table = new_table("at", "by", "act", "reason", "target")
    for action in found:
        target = {name: value for name, value in action.target.items() if name not in _LISTS}
        seqs = [row["seq"] for row in action.target.get("rows", ())]
        ids = [letter["id"] for letter in action.target.get("letters", ())]
        target |= {"seqs": seqs[:_SEQS_SHOWN_MAX]} if seqs else {}
        target |= {"letters": ids[:_SEQS_SHOWN_MAX]} if ids else {}
        tasks = action.target.get("tasks", ())
        target |= {"tasks": tasks[:_SEQS_SHOWN_MAX]} if tasks else {}
        at = action.at.strftime("%Y-%m-%d %H:%M:%S %z")
        table.add_row(
            *map(cell_text, (at, action.actor, action.act, action.reason, to_json(target).decode()))
        )
    print_table(table)
