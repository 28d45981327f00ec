"""Print the results of ``relaybox dead-letters`` as tables and lines."""

from collections.abc import Sequence
from typing import Final

import typer
from rich.pretty import pprint

from relaybox.cli._output import cell_text, format_age, format_time, new_table, print_table
from relaybox.operations import (
    Letter,
    LetterAction,
    LetterDetails,
    LetterPreview,
    LettersDiscarded,
    MessageToPark,
    ReplayRequested,
)

__all__ = (
    "print_discarded",
    "print_letter",
    "print_letter_preview",
    "print_letters",
    "print_message_to_park",
    "print_replay_requested",
)

_DONE: Final = {LetterAction.REPLAY: "requested for replay", LetterAction.DISCARD: "discarded"}
_NOTHING: Final = "no letter matches; nothing was changed"


def print_letters(letters: Sequence[Letter]) -> None:
    """Print a table with a line per dead letter."""
    if not letters:
        typer.echo("no letter matches")
        return
    columns = ("id", "group", "key", "status", "cause", "error", "attempts", "age", "event type")
    keys = [letter.message_key for letter in letters]
    table = new_table(*columns, right=("id", "attempts", "age"), keys=keys)
    for letter in letters:
        cells = (letter.id, letter.consumer_group, letter.message_key, letter.status, letter.reason)
        more = (letter.error_code, letter.attempts, format_age(letter.parked_at), letter.event_type)
        table.add_row(*map(cell_text, (*cells, *more)))
    print_table(table)


def print_letter(details: LetterDetails) -> None:
    """Print one dead letter: a line per field, header and action of an operator, and the payload if given."""
    letter, table = details.letter, new_table("", "")
    table.show_header = False
    fields = {
        "letter": letter.id,
        "group": letter.consumer_group,
        "status": letter.status,
        "cause": letter.reason,
        "error code": letter.error_code,
        "error": letter.error,
        "attempts": letter.attempts,
        "parked": format_time(letter.parked_at),
        "key": letter.message_key,
        "letters behind": details.behind,
        "event": letter.event_id,
        "event type": letter.event_type,
        "message": f"{letter.topic}, partition {letter.partition}, offset {letter.message_offset}",
        "resolved": format_time(letter.resolved_at),
        "by": letter.resolved_by,
        "reason": letter.resolved_reason,
        **details.headers,
    }
    for name, value in fields.items():
        if value is not None:
            table.add_row(cell_text(name), cell_text(value))
    for action in details.acts:
        reason = action["reason"] or "no reason given"
        table.add_row("act", cell_text(f"{action['act']} by {action['by']} at {action['at']}: {reason}"))
    print_table(table)
    if details.payload is not None:
        pprint(details.payload, expand_all=True)


def print_letter_preview(action: LetterAction, found: LetterPreview) -> None:
    """Print the first dead letters that *action* would change, and the total number of such letters."""
    print_letters(found.letters)
    if found.letters_total > len(found.letters):
        typer.echo(f"… and {found.letters_total - len(found.letters)} more")
    if action is LetterAction.REPLAY:
        _print_behind_another(found.letters_behind_another)
    if found.letters:
        typer.echo(f"dry run: {found.letters_total} would be {_DONE[action]}; add --yes to do it")


def print_replay_requested(done: ReplayRequested) -> None:
    """Print for how many dead letters a replay was requested, and how many wait behind another letter."""
    typer.echo(f"{done.letters_total} {_DONE[LetterAction.REPLAY]}" if done.letters_total else _NOTHING)
    _print_behind_another(done.letters_behind_another)


def print_discarded(done: LettersDiscarded) -> None:
    """Print the number of discarded dead letters, and of keys whose next letter will be replayed."""
    typer.echo(f"{done.letters_total} {_DONE[LetterAction.DISCARD]}" if done.letters_total else _NOTHING)
    if done.replays_requested:
        typer.echo(f"keys whose next letter will be replayed: {done.replays_requested}")


def print_message_to_park(found: MessageToPark, *, done: bool) -> None:
    """Print the message, and whether its parking was requested earlier or now, or would be requested.

    Args:
        found: The message.
        done: Whether this command has requested the parking; False for a dry run.
    """
    place, table = found.place, new_table("", "")
    table.show_header = False
    fields = {
        "group": place.group,
        "message": f"{place.topic}, partition {place.partition}, offset {place.offset}",
        "key": found.key,
        "event type": found.event_type,
        "committed offset": found.committed,
    }
    for name, value in fields.items():
        table.add_row(cell_text(name), cell_text(value))
    print_table(table)
    if found.requested_by is not None:
        typer.echo(f"requested by {cell_text(found.requested_by)} before; no consumer has reached it yet")
    elif done:
        typer.echo("requested; a consumer of the group parks it when it reaches the message")
    else:
        typer.echo("dry run: this message would be parked; add --yes to do it")


def _print_behind_another(letters: int) -> None:
    if letters:
        typer.echo(
            f"note: {letters} of these letters will wait for an earlier letter of their key; "
            "replay or discard the earlier letter, too"
        )
