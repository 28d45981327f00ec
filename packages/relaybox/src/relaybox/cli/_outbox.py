"""``relaybox outbox …``: what waits in the outbox, why, and what to do about it (G32)."""

from dataclasses import asdict
from typing import Annotated, Final
from uuid import UUID

import typer

from relaybox.cli._options import SEQ_MAX, AsJson, By, Yes, actor_name, with_selection_options
from relaybox.cli._outbox_output import (
    print_acts,
    print_blocked,
    print_details,
    print_done,
    print_preview,
    print_rows,
    print_skipped,
)
from relaybox.cli._output import print_json, run_on_database
from relaybox.cli._report import ErrorsAsLines
from relaybox.operations import (
    Action,
    Selection,
    SelectionEmpty,
    State,
    blocked_keys,
    list_actions,
    list_rows,
    preview,
    purge,
    retry,
    show_row,
    skip,
)

__all__ = ("outbox_commands",)

outbox_commands = typer.Typer(
    cls=ErrorsAsLines, no_args_is_help=True, help="What waits in the outbox, and what to do about it."
)
_LIMIT_MAX: Final = 10_000
_PREVIEW_ROWS: Final = 20
_UNSENT: Final = (State.PENDING, State.RETRYING, State.FAILED, State.SKIPPED)
_UNSKIPPED: Final = (State.PENDING, State.RETRYING, State.FAILED, State.SENT)

Limit = Annotated[int, typer.Option("--limit", min=1, max=_LIMIT_MAX, help="Show at most so many.")]
All = Annotated[bool, typer.Option("--all", help="Mean every row, where no option names any.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Why, for the record.")]


@outbox_commands.command("list")
@with_selection_options
def list_(
    selection: Selection,
    states: Annotated[
        list[State] | None, typer.Option("--state", help="In this state; by default all but sent.")
    ] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List rows in order, without their payloads; all but the sent ones unless rows or states are named."""
    wanted = states or (tuple(State) if selection.names_rows() else _UNSENT)
    rows = run_on_database(lambda db: list_rows(db, selection, wanted, rows_max=limit))
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        print_rows(rows)
        if len(rows) == limit:
            typer.echo(f"the first {limit}; --limit shows more")


@outbox_commands.command()
def show(
    which: Annotated[str, typer.Argument(metavar="ID|SEQ", help="The row's id, or its number.")],
    with_payload: Annotated[
        bool, typer.Option("--payload", help="Show the payload too: it may hold personal data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one row: its envelope, its error, and what operators did to it."""
    number = _parse_row_reference(which)
    details = run_on_database(lambda db: show_row(db, number, with_payload=with_payload))
    if as_json:
        print_json(asdict(details))
    else:
        print_details(details)


@outbox_commands.command()
@with_selection_options
def blocked(selection: Selection, limit: Limit = 50, as_json: AsJson = False) -> None:
    """Tell which keys wait, for which row, why, since when, and how many rows wait behind it."""
    found = run_on_database(lambda db: blocked_keys(db, selection, keys_max=limit))
    if as_json:
        print_json(asdict(found))
    else:
        print_blocked(found)


@outbox_commands.command("retry")
@with_selection_options
def retry_(
    selection: Selection,
    every: All = False,
    yes: Yes = False,
    by: By = None,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Put FAILED rows back, to be published in order. Shows what it would do unless --yes is given."""
    _require_selection(selection, every)
    if yes:
        done = run_on_database(lambda db: retry(db, selection, by=actor_name(by), reason=reason))
        print_done(Action.RETRY, done, as_json)
    else:
        _dry_run(Action.RETRY, selection, as_json)


@outbox_commands.command("skip")
@with_selection_options
def skip_(
    selection: Selection,
    reason: Annotated[str, typer.Option("--reason", help="Why these are never published, for the record.")],
    every: All = False,
    yes: Yes = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Never publish FAILED rows, so that their keys go on. Shows what it would do unless --yes is given.

    Readers of the topic never see these events. The rows stay, marked as skipped, until they are purged.
    """
    _require_selection(selection, every)
    if not reason.strip():
        raise typer.BadParameter("say why", param_hint="--reason")
    if yes:
        done = run_on_database(lambda db: skip(db, selection, by=actor_name(by), reason=reason))
        # A key or an error class also means rows that were never to be skipped; a number or an id does not.
        states = _UNSKIPPED if selection.names_rows() else (State.FAILED,)
        left = run_on_database(lambda db: list_rows(db, selection, states, rows_max=_PREVIEW_ROWS))
        print_skipped(done, left, as_json)
    else:
        _dry_run(Action.SKIP, selection, as_json)


@outbox_commands.command("purge")
@with_selection_options
def purge_(
    selection: Selection,
    every: All = False,
    yes: Yes = False,
    by: By = None,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Remove rows that are SENT or skipped, never others. Shows what it would do unless --yes is given."""
    _require_selection(selection, every)
    if yes:
        done = run_on_database(lambda db: purge(db, selection, by=actor_name(by), reason=reason))
        print_done(Action.PURGE, done, as_json)
    else:
        _dry_run(Action.PURGE, selection, as_json)


@outbox_commands.command()
def acts(limit: Limit = 50, as_json: AsJson = False) -> None:
    """List what operators did to the outbox and the lanes, the newest first."""
    found = run_on_database(lambda db: list_actions(db, actions_max=limit))
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        print_acts(found)


def _parse_row_reference(which: str) -> UUID | int:
    try:
        return int(which) if which.isdecimal() and int(which) <= SEQ_MAX else UUID(which)
    except ValueError as error:
        raise typer.BadParameter(f"{which!r} is neither an id nor a number", param_hint="ID|SEQ") from error


def _require_selection(selection: Selection, every: bool) -> None:
    if selection.selects_every_row() and not every:
        raise SelectionEmpty(
            "say which rows: --id, --seq, --key, --error-class, --fault, --older-than, or --all"
        )


def _dry_run(act: Action, selection: Selection, as_json: bool) -> None:
    found = run_on_database(lambda db: preview(db, act, selection, rows_max=_PREVIEW_ROWS))
    if as_json:
        print_json({"act": act, "done": False, **asdict(found)})
    else:
        print_preview(act, found)
