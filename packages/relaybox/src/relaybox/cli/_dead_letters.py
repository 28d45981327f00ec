"""Define ``relaybox dead-letters``: inspect parked messages; replay, discard and park them (G41, G42)."""

from dataclasses import asdict
from typing import Annotated, Final

import typer

from relaybox.cli._dead_letters_output import (
    print_discarded,
    print_letter,
    print_letter_preview,
    print_letters,
    print_message_to_park,
    print_replay_requested,
)
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
    with_options,
)
from relaybox.cli._output import print_json, run_on_database, run_with_database
from relaybox.operations import (
    LetterAction,
    LetterReason,
    LetterSelection,
    LetterStatus,
    MessagePlace,
    SelectionEmpty,
    discard_letters,
    list_letters,
    preview_letters,
    preview_parking,
    replay_letters,
    request_parking,
    show_letter,
)
from relaybox.settings import KafkaSettings, load_settings

__all__ = ("letter_commands",)

letter_commands = typer.Typer(
    cls=ErrorsAsLines,
    no_args_is_help=True,
    help="Inspect messages that consumers parked; replay and discard them; park a message.",
)
_PREVIEW_LETTERS: Final = 20
_PARTITION_MAX: Final = 2**31 - 1

All = Annotated[bool, typer.Option("--all", help="Select every letter, if no other option selects letters.")]


def _options(
    ids: Annotated[
        list[int] | None,
        typer.Option("--id", min=1, max=SEQ_MAX, help="The letter with this id; may be repeated."),
    ] = None,
    keys: Annotated[
        list[str] | None, typer.Option("--key", help="Letters with this message key; may be repeated.")
    ] = None,
    event_types: Annotated[
        list[str] | None, typer.Option("--event-type", help="Letters of this event type; may be repeated.")
    ] = None,
    groups: Annotated[
        list[str] | None, typer.Option("--group", help="Letters of this consumer group; may be repeated.")
    ] = None,
    reasons: Annotated[
        list[LetterReason] | None,
        typer.Option("--cause", help="Letters that were parked for this cause; may be repeated."),
    ] = None,
    statuses: Annotated[
        list[LetterStatus] | None, typer.Option("--status", help="Letters in this status; may be repeated.")
    ] = None,
) -> LetterSelection:
    return LetterSelection(
        ids=ids or (),
        keys=keys or (),
        event_types=event_types or (),
        groups=groups or (),
        reasons=reasons or (),
        statuses=statuses or (),
    )


with_letter_options: Final = with_options(_options)


@letter_commands.command("list")
@with_letter_options
def list_(selection: LetterSelection, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List dead letters by id, without content; replayed and discarded ones only with --id or --status."""
    letters = run_on_database(lambda db: list_letters(db, selection, letters_max=limit))
    if as_json:
        print_json([asdict(letter) for letter in letters])
    else:
        print_letters(letters)
        if len(letters) == limit:
            typer.echo(f"only the first {limit} letters are shown; use a larger --limit for more")


@letter_commands.command()
def show(
    letter_id: Annotated[int, typer.Argument(metavar="ID", min=1, max=SEQ_MAX, help="Id of the letter.")],
    with_payload: Annotated[
        bool,
        typer.Option("--payload", help="Show value and all headers too; they may contain personal data."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: its message, its error, the letters behind it, and actions of operators on it."""
    details = run_on_database(lambda db: show_letter(db, letter_id, with_payload=with_payload))
    if as_json:
        print_json(asdict(details))
    else:
        print_letter(details)


@letter_commands.command()
@with_letter_options
def replay(
    selection: LetterSelection,
    select_all: All = False,
    yes: Yes = False,
    by: By = None,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Request the replay of PARKED dead letters; the running consumers replay them in the order of their key.

    Letters that only wait behind a replayed letter follow automatically. Without --yes, only shows the
    letters.
    """
    _require_selection(selection, select_all)
    if not yes:
        _dry_run(LetterAction.REPLAY, selection, as_json)
        return
    done = run_with_database(
        lambda database: replay_letters(database, selection, by=actor_name(by), reason=reason)
    )
    if as_json:
        print_json({"act": LetterAction.REPLAY, "done": True, **asdict(done)})
    else:
        print_replay_requested(done)


@letter_commands.command()
@with_letter_options
def discard(
    selection: LetterSelection,
    reason: Annotated[
        str,
        typer.Option(
            "--reason", help="Why the group never processes these messages; recorded with the action."
        ),
    ],
    select_all: All = False,
    yes: Yes = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Discard unresolved dead letters: their group never processes them, and their keys continue.

    The letters stay, with the status DISCARDED. Without --yes, only shows the letters.
    """
    _require_selection(selection, select_all)
    require_reason(reason)
    if not yes:
        _dry_run(LetterAction.DISCARD, selection, as_json)
        return
    done = run_with_database(
        lambda database: discard_letters(database, selection, by=actor_name(by), reason=reason)
    )
    if as_json:
        print_json({"act": LetterAction.DISCARD, "done": True, **asdict(done)})
    else:
        print_discarded(done)


@letter_commands.command()
def park(
    group: Annotated[
        str, typer.Option("--group", help="The consumer group that must not handle the message.")
    ],
    topic: Annotated[str, typer.Option("--topic", help="The topic of the message.")],
    partition: Annotated[
        int, typer.Option("--partition", min=0, max=_PARTITION_MAX, help="The partition of the message.")
    ],
    offset: Annotated[int, typer.Option("--offset", min=0, max=SEQ_MAX, help="The offset of the message.")],
    reason: Annotated[
        str,
        typer.Option(
            "--reason", help="Why the message is parked; recorded with the action and in the letter."
        ),
    ],
    yes: Yes = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Request that a group parks a message that it has not finished, without calling its handler.

    Use this for a message whose handler ends the process. The consumers of the group, those that run now and
    those that start later, park the message and, behind it, the later messages of its key. Without --yes,
    only shows the message.
    """
    require_reason(reason)
    kafka = load_settings(KafkaSettings)
    place = MessagePlace(group=group, topic=topic, partition=partition, offset=offset)
    if yes:
        found = run_with_database(
            lambda database: request_parking(database, kafka, place, by=actor_name(by), reason=reason)
        )
    else:
        found = run_on_database(lambda db: preview_parking(db, kafka, place))
    if as_json:
        print_json({"act": "park", "done": yes and found.requested_by is None, **asdict(found)})
    else:
        print_message_to_park(found, done=yes)


def _require_selection(selection: LetterSelection, select_all: bool) -> None:
    if selection.selects_every_letter() and not select_all:
        raise SelectionEmpty(
            "no dead letters are selected; use --id, --key, --event-type, --group, --cause, --status or --all"
        )


def _dry_run(action: LetterAction, selection: LetterSelection, as_json: bool) -> None:
    found = run_on_database(lambda db: preview_letters(db, action, selection, letters_max=_PREVIEW_LETTERS))
    if as_json:
        print_json({"act": action, "done": False, **asdict(found)})
    else:
        print_letter_preview(action, found)
