"""The outbox as people read it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import typer
from pydantic_core import to_json
from rich.pretty import pprint

from relaybox.cli._output import cell_text, format_age, new_table, print_json, print_table
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
    "print_acts",
    "print_blocked",
    "print_details",
    "print_done",
    "print_preview",
    "print_rows",
    "print_skipped",
)

_DONE: Final = {Action.RETRY: "put back to PENDING", Action.SKIP: "skipped", Action.PURGE: "removed"}
_SEQS_SHOWN_MAX: Final = 20
#: What to do about rows behind an earlier FAILED one; a purge finds none.
_BEHIND_ANOTHER: Final = {
    Action.RETRY: "they will wait for it; retry or skip that one too",
    Action.SKIP: "they will stay as they are; decide about that one first",
}


def print_rows(rows: Sequence[Row]) -> None:
    """One line per row."""
    if not rows:
        typer.echo("no such row")
        return
    columns = ("seq", "state", "key", "event type", "age", "attempts", "error", "topic")
    made = new_table(*columns, right=("seq", "age", "attempts"), keys=[row.key for row in rows])
    for row in rows:
        cells = (row.seq, row.state, row.key, row.event_type, format_age(row.created_at), row.attempts)
        made.add_row(*map(cell_text, (*cells, row.error_class, row.topic)))
    print_table(made)


def print_details(details: RowDetails) -> None:
    """All of one row, a line per fact."""
    row, made = details.row, new_table("", "")
    made.show_header = False
    facts = {
        "row": f"{row.seq}, {row.id}",
        "state": row.state,
        "topic": row.topic,
        "key": row.key,
        "written": _format_time(row.created_at),
        "sent": _format_time(row.sent_at),
        "skipped": _format_time(row.skipped_at),
        "attempts": row.attempts or None,
        "next attempt": _format_time(row.next_attempt_at),
        "fault": row.fault,
        "error": row.error_class,
        "message": row.error_message,
        "failed": _format_time(row.failed_at),
        **dict(details.envelope),
    }
    for name, value in facts.items():
        if value is not None:
            made.add_row(name, cell_text(value))
    for act in details.acts:
        made.add_row(
            "act",
            cell_text(f"{act['act']} by {act['by']} at {act['at']}: {act['reason'] or 'no reason given'}"),
        )
    print_table(made)
    if details.payload is not None:
        pprint(details.payload, expand_all=True)


def _format_time(at: datetime | None) -> str | None:
    return at and f"{at.isoformat(timespec='seconds')}, {format_age(at)}"


def print_blocked(found: BlockedKeys) -> None:
    """One line per key that waits, then one per lane with a fault."""
    if not found.keys and not found.lanes:
        typer.echo("no key is blocked")
        return
    if found.keys:
        columns = ("key", "lane", "waits for", "since", "head", "attempts", "error", "message", "behind")
        right = ("lane", "since", "head", "attempts", "behind")
        made = new_table(*columns, right=right, keys=[one.head.key for one in found.keys])
        for one in found.keys:
            made.add_row(*map(cell_text, _blocked_cells(one)))
        print_table(made)
    if found.keys_total > len(found.keys):
        typer.echo(f"… and {found.keys_total - len(found.keys)} more keys; --limit shows more")
    for lane in found.lanes:
        typer.echo(f"lane {lane.lane} publishes nothing, {lane.pending} rows wait: {cell_text(lane.fault)}")


def _blocked_cells(one: BlockedKey) -> tuple[object, ...]:
    head = one.head
    return (
        head.key,
        one.lane,
        _waits_for(head),
        format_age(head.failed_at or head.created_at),
        head.seq,
        head.attempts,
        head.error_class,
        head.error_message,
        one.behind,
    )


def _waits_for(head: Row) -> str:
    if head.state is State.RETRYING:
        return f"the next attempt, {format_age(head.next_attempt_at)}"
    return "the broker" if head.fault == "link" else "an operator"


def print_preview(act: Action, found: Preview) -> None:
    """What an act would do."""
    print_rows(found.rows)
    if found.rows_total > len(found.rows):
        typer.echo(f"… and {found.rows_total - len(found.rows)} more")
    if found.rows_behind_another:
        typer.echo(
            f"note: {found.rows_behind_another} of them stand behind an earlier FAILED row of their key: "
            f"{_BEHIND_ANOTHER[act]}"
        )
    if found.rows:
        typer.echo(f"dry run: {found.rows_total} would be {_DONE[act]}; add --yes to do it")


def print_done(act: Action, rows: int, as_json: bool) -> None:
    """What an act has done."""
    if as_json:
        typer.echo(to_json({"act": act, "done": True, "rows_total": rows}).decode())
    else:
        typer.echo(f"{rows} {_DONE[act]}" if rows else "no such row; nothing done")


def print_skipped(rows: int, left: Sequence[Row], as_json: bool) -> None:
    """Print how many rows were skipped, and which of the selected rows were not."""
    if as_json:
        rows_left = [{"seq": row.seq, "state": row.state} for row in left]
        print_json({"act": Action.SKIP, "done": True, "rows_total": rows, "rows_left": rows_left})
        return
    print_done(Action.SKIP, rows, as_json)
    if left:
        named = ", ".join(f"{row.seq} ({row.state})" for row in left)
        typer.echo(f"not skipped: {named}; only FAILED rows can be, the first of a key first")


def print_acts(found: Sequence[RecordedAction]) -> None:
    """One line per act."""
    if not found:
        typer.echo("nobody has done anything")
        return
    made = new_table("at", "by", "act", "reason", "done to")
    for one in found:
        target = {name: value for name, value in one.target.items() if name != "rows"}
        seqs = [row["seq"] for row in one.target.get("rows", ())]
        target |= {"seqs": seqs[:_SEQS_SHOWN_MAX]} if seqs else {}
        at = one.at.strftime("%Y-%m-%d %H:%M:%S %z")
        made.add_row(*map(cell_text, (at, one.actor, one.act, one.reason, to_json(target).decode())))
    print_table(made)
