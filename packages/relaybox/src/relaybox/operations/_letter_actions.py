"""Actions of operators on dead letters.

An action runs as one or more transactions. Each transaction changes at most 1,000 letters, and records the
action on these letters in ``operator_acts``. A letter with the status PARKED or REPLAY_REQUESTED is
*unresolved*.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from relaybox.db import Database, Executor, executor_of, load_queries
from relaybox.operations._errors import SelectionEmpty
from relaybox.operations._letters import Letter, LetterSelection, LetterStatus, letter_from_record

__all__ = (
    "LetterAction",
    "LetterPreview",
    "LettersDiscarded",
    "ReplayRequested",
    "discard_letters",
    "preview_letters",
    "replay_letters",
)

_SQL: Final = load_queries(__package__ or "relaybox.operations", "dead_letters.sql")
_SELECTED: Final = _SQL.including("selected_letters", all_letters=_SQL["all_letters"])
_BEHIND: Final = _SQL["behind_another"]
_PREVIEW: Final = _SQL.including("preview_letters", selected_letters=_SELECTED, behind_another=_BEHIND)
_REPLAY: Final = _SQL.including("replay_letters", selected_letters=_SELECTED, behind_another=_BEHIND)
_DISCARD: Final = _SQL.including("discard_letters", selected_letters=_SELECTED)
#: Letters per transaction: bounds the duration of row locks and the size of the recorded action.
_STEP_LETTERS_MAX: Final = 1_000
_ID_MAX: Final = 2**63 - 1


class LetterAction(StrEnum):
    """An action of an operator on dead letters."""

    #: PARKED letters become REPLAY_REQUESTED: consumers of the group process them again.
    REPLAY = "replay"
    #: PARKED and REPLAY_REQUESTED letters become DISCARDED: consumers never process them.
    DISCARD = "discard"


_STATUSES: Final = {
    LetterAction.REPLAY: [LetterStatus.PARKED],
    LetterAction.DISCARD: [LetterStatus.PARKED, LetterStatus.REPLAY_REQUESTED],
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LetterPreview:
    """The letters that an action would change now."""

    #: The first letters, by id.
    letters: Sequence[Letter]
    #: Number of letters, including those not listed.
    letters_total: int
    #: Number of these letters that would wait after a request, because an earlier letter of the same key is
    #: neither selected nor requested. They wait until this earlier letter is replayed or discarded.
    letters_behind_another: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayRequested:
    """Result of a request to replay letters."""

    #: Number of letters that this call requested.
    letters_total: int
    #: Number of these letters that wait for an earlier letter of the same key whose replay is not requested.
    letters_behind_another: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LettersDiscarded:
    """Result of a discard."""

    #: Number of letters that this call discarded.
    letters_total: int
    #: Number of keys that continue: a letter that only waited for a discarded letter is now the first of its
    #: key, and its replay was requested. The later letters of the key follow.
    replays_requested: int


async def preview_letters(
    db: Executor, action: LetterAction, selection: LetterSelection, *, letters_max: int
) -> LetterPreview:
    """Return the first *letters_max* letters of *selection* that *action* would change; change nothing.

    Raises:
        SelectionEmpty: The selection names letters by id, and *action* applies to none of them.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    found = await db.fetch(_PREVIEW, *selection.arguments(), _STATUSES[action], letters_max)
    if not found:
        _raise_if_letters_are_named(action, selection)
        return LetterPreview(letters=(), letters_total=0, letters_behind_another=0)
    return LetterPreview(
        letters=[letter_from_record(record) for record in found],
        letters_total=found[0]["total"],
        letters_behind_another=found[0]["total_behind_another"],
    )


async def replay_letters(
    database: Database, selection: LetterSelection, *, by: str, reason: str | None = None
) -> ReplayRequested:
    """Request the replay of the selected PARKED letters.

    The running consumers of the group replay the letters of each key in order. When a letter was replayed and
    the next letter of the key has the reason BLOCKED, the consumer requests the replay of this next letter. A
    requested letter waits while an earlier letter of its key is not requested. If two operators request the
    same letters at the same time, each letter is requested and counted by one of the two calls.

    Args:
        database: The database; each transaction changes at most 1,000 letters.
        selection: The letters; selected letters with another status than PARKED do not change.
        by: Name of the operator, for the record of the action and of each letter.
        reason: Reason, for the same records.

    Raises:
        SelectionEmpty: The selection names letters by id, and none of them is PARKED.
        DatabaseError: PostgreSQL is unreachable or too busy; earlier transactions of this call are committed.
    """
    letters = behind_another = 0
    after_id: int | None = -1
    while after_id is not None:
        arguments = (*selection.arguments(), after_id, _STEP_LETTERS_MAX, by, reason, selection.as_json())
        [step] = await database.run_in_transaction(
            lambda db, arguments=arguments: executor_of(db).fetch(_REPLAY, *arguments),
            isolation="READ COMMITTED",
        )
        letters += step["letters"]
        behind_another += step["behind_another"]
        after_id = step["last_id"]
    if not letters:
        _raise_if_letters_are_named(LetterAction.REPLAY, selection)
    return ReplayRequested(letters_total=letters, letters_behind_another=behind_another)


async def discard_letters(
    database: Database, selection: LetterSelection, *, by: str, reason: str
) -> LettersDiscarded:
    """Discard the selected PARKED and REPLAY_REQUESTED letters: their group never processes them.

    If the next letter of a key only waited for a discarded letter (reason BLOCKED), its replay is requested,
    so that the key continues. A letter that a consumer replays at this moment is discarded only if the replay
    fails.

    The arguments are those of :func:`replay_letters`. Letters are discarded from the highest id to the
    lowest.

    Raises:
        SelectionEmpty: The selection names letters by id, and none of them is PARKED or REPLAY_REQUESTED.
        DatabaseError: PostgreSQL is unreachable or too busy; earlier transactions of this call are committed.
    """
    letters = requested = 0
    before_id: int | None = _ID_MAX
    while before_id is not None:
        arguments = (*selection.arguments(), before_id, _STEP_LETTERS_MAX, by, reason, selection.as_json())
        before_id, ids, next_ids = await database.run_in_transaction(
            lambda db, arguments=arguments: _discard_step(executor_of(db), by, reason, arguments),
            isolation="READ COMMITTED",
        )
        letters += len(ids)
        requested += len(next_ids)
    if not letters:
        _raise_if_letters_are_named(LetterAction.DISCARD, selection)
    return LettersDiscarded(letters_total=letters, replays_requested=requested)


async def _discard_step(
    db: Executor, by: str, reason: str, arguments: tuple[object, ...]
) -> tuple[int | None, Sequence[int], Sequence[int]]:
    """Discard the letters of one transaction, and request the replay of letters that waited only for them.

    *arguments* are the parameters of the query ``discard_letters``.

    Returns:
        The lowest selected id, None if no letter was left to discard; the ids of the discarded letters; the
        ids of the letters whose replay was requested.
    """
    [step] = await db.fetch(_DISCARD, *arguments)
    requested = await db.fetch(_SQL["request_next"], step["ids"], by, reason)
    return step["last_id"], step["ids"], [row["id"] for row in requested]


def _raise_if_letters_are_named(action: LetterAction, selection: LetterSelection) -> None:
    if selection.ids:
        expected = {LetterAction.REPLAY: "PARKED", LetterAction.DISCARD: "PARKED or REPLAY_REQUESTED"}[action]
        raise SelectionEmpty(
            f"none of the named dead letters is {expected}; `relaybox dead-letters show` prints their status"
        )
