"""Define ``relaybox outbox``: inspect the outbox; retry, skip and purge its rows (G32)."""

from dataclasses import asdict
from typing import Annotated, Final
from uuid import UUID

import typer

from relaybox.cli._errors import ErrorsAsLines
from relaybox.cli._options import (
    SEQ_MAX,
    AsJson,
    By,
    Limit,
    Reason,
    Yes,
    actor_name,
    require_reason,
    with_selection_options,
)
from relaybox.cli._outbox_output import (
    print_actions,
    print_blocked,
    print_details,
    print_done,
    print_preview,
    print_rows,
    print_skipped,
)
from relaybox.cli._output import print_json, run_on_database
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
    cls=ErrorsAsLines, no_args_is_help=True, help="Inspect the outbox; retry, skip and purge its rows."
)
_PREVIEW_ROWS: Final = 20
_NOT_SENT: Final = (State.PENDING, State.RETRYING, State.FAILED, State.SKIPPED)
_NOT_SKIPPED: Final = (State.PENDING, State.RETRYING, State.FAILED, State.SENT)

All = Annotated[bool, typer.Option("--all", help="Select every row, if no other option selects rows.")]


@outbox_commands.command("list")
@with_selection_options
def list_(
    selection: Selection,
    states: Annotated[
        list[State] | None,
        typer.Option("--state", help="Rows in this state; may be repeated; by default all but sent."),
    ] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List rows by seq, without payloads; SENT rows only with --id, --seq or --state sent."""
    shown = states or (tuple(State) if selection.names_rows() else _NOT_SENT)
    rows = run_on_database(lambda db: list_rows(db, selection, shown, rows_max=limit))
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        print_rows(rows)
        if len(rows) == limit:
            typer.echo(f"only the first {limit} rows are shown; use a larger --limit for more")


@outbox_commands.command()
def show(
    row: Annotated[str, typer.Argument(metavar="ID|SEQ", help="Id (UUID) or seq (number) of the row.")],
    with_payload: Annotated[
        bool, typer.Option("--payload", help="Show the payload too; it may contain personal data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one row: its envelope, its error, and the actions of operators on it."""
    reference = _parse_row_reference(row)
    details = run_on_database(lambda db: show_row(db, reference, with_payload=with_payload))
    if as_json:
        print_json(asdict(details))
    else:
        print_details(details)


@outbox_commands.command()
@with_selection_options
def blocked(selection: Selection, limit: Limit = 50, as_json: AsJson = False) -> None:
    """Show each blocked key, the row that blocks it, its error and age, and the number of waiting rows.

    The column "behind" has the number of later rows with the same key. Relays do not publish these rows while
    the key is blocked.
    """
    found = run_on_database(lambda db: blocked_keys(db, selection, keys_max=limit))
    if as_json:
        print_json(asdict(found))
    else:
        print_blocked(found)


@outbox_commands.command("retry")
@with_selection_options
def retry_(
    selection: Selection,
    select_all: All = False,
    yes: Yes = False,
    by: By = None,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Change FAILED rows to PENDING; relays publish them in the order of their key.

    Without --yes, only shows the rows.
    """
    _require_selection(selection, select_all)
    if yes:
        done = run_on_database(lambda db: retry(db, selection, by=actor_name(by), reason=reason))
        print_done(Action.RETRY, done, as_json)
    else:
        _dry_run(Action.RETRY, selection, as_json)


@outbox_commands.command("skip")
@with_selection_options
def skip_(
    selection: Selection,
    reason: Annotated[
        str, typer.Option("--reason", help="Why these rows are never published; recorded with the action.")
    ],
    select_all: All = False,
    yes: Yes = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Mark FAILED rows as never to be published, and unblock their keys.

    Consumers of the topic never receive these events. The rows stay, marked as skipped, until they are
    purged. Without --yes, only shows the rows.
    """
    _require_selection(selection, select_all)
    require_reason(reason)
    if yes:
        done = run_on_database(lambda db: skip(db, selection, by=actor_name(by), reason=reason))
        # With --id or --seq the operator meant exactly these rows, so any of them that is not skipped is
        # listed. The other options also select rows that cannot be skipped, so only FAILED rows are listed.
        states = _NOT_SKIPPED if selection.names_rows() else (State.FAILED,)
        not_skipped = run_on_database(lambda db: list_rows(db, selection, states, rows_max=_PREVIEW_ROWS))
        print_skipped(done, not_skipped, as_json)
    else:
        _dry_run(Action.SKIP, selection, as_json)


@outbox_commands.command("purge")
@with_selection_options
def purge_(
    selection: Selection,
    select_all: All = False,
    yes: Yes = False,
    by: By = None,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Remove rows that are SENT or skipped, never other rows. Without --yes, only shows the rows."""
    _require_selection(selection, select_all)
    if yes:
        done = run_on_database(lambda db: purge(db, selection, by=actor_name(by), reason=reason))
        print_done(Action.PURGE, done, as_json)
    else:
        _dry_run(Action.PURGE, selection, as_json)


@outbox_commands.command()
def acts(limit: Limit = 50, as_json: AsJson = False) -> None:
    """List the recorded actions of operators, newest first.

    These are actions on the outbox, lanes, dead letters, flows, tasks and schedules.
    """
    found = run_on_database(lambda db: list_actions(db, actions_max=limit))
    if as_json:
        print_json([asdict(action) for action in found])
    else:
        print_actions(found)


def _parse_row_reference(text: str) -> UUID | int:
    try:
        return int(text) if text.isdecimal() and int(text) <= SEQ_MAX else UUID(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is neither an id (UUID) nor a seq (number)", param_hint="ID|SEQ"
        ) from error


def _require_selection(selection: Selection, select_all: bool) -> None:
    if selection.selects_every_row() and not select_all:
        raise SelectionEmpty(
            "no rows are selected; use --id, --seq, --key, --error-class, --fault, --older-than or --all"
        )


def _dry_run(action: Action, selection: Selection, as_json: bool) -> None:
    found = run_on_database(lambda db: preview(db, action, selection, rows_max=_PREVIEW_ROWS))
    if as_json:
        print_json({"act": action, "done": False, **asdict(found)})
    else:
        print_preview(action, found)
