"""Query dead letters: messages that a consumer group could not process, and those behind them (G41, G42)."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from pydantic_core import from_json, to_json

from relaybox.db import Executor, load_queries
from relaybox.operations._errors import SelectionEmpty

__all__ = (
    "Letter",
    "LetterDetails",
    "LetterReason",
    "LetterSelection",
    "LetterStatus",
    "letter_from_record",
    "list_letters",
    "show_letter",
)

_SQL: Final = load_queries(__package__ or "relaybox.operations", "dead_letters.sql")
_ALL: Final = _SQL["all_letters"]
_SELECTED: Final = _SQL.including("selected_letters", all_letters=_ALL)
_LIST: Final = _SQL.including("list_letters", selected_letters=_SELECTED)
_SHOW: Final = _SQL.including("show_letter", all_letters=_ALL)
#: Headers with this prefix have ids, types and times of the event; any other may contain personal data.
_PUBLIC_HEADERS: Final = "ce_"


class LetterReason(StrEnum):
    """Why a message was parked."""

    #: The handler failed on every attempt or ended its process, or an operator requested the parking.
    HANDLER_FAILED = "HANDLER_FAILED"
    #: The message is not an event, is too large, or has a version that cannot be read.
    ENVELOPE_INVALID = "ENVELOPE_INVALID"
    #: An earlier message of the same key is parked.
    BLOCKED = "BLOCKED"


class LetterStatus(StrEnum):
    """State of a dead letter."""

    #: The letter waits for an operator or, with the reason BLOCKED, for the earlier letter of its key.
    PARKED = "PARKED"
    #: A consumer of the group will replay the letter, after the earlier letters of its key.
    REPLAY_REQUESTED = "REPLAY_REQUESTED"
    #: The handler has processed the message, and its effects are committed.
    REPLAYED = "REPLAYED"
    #: An operator discarded the letter: the group never processes the message.
    DISCARDED = "DISCARDED"


@dataclass(frozen=True, kw_only=True, slots=True)
class LetterSelection:
    """Conditions that a dead letter must meet, all of them; an empty condition is met by every letter."""

    ids: Sequence[int] = ()
    #: Message keys, as text.
    keys: Sequence[str] = ()
    event_types: Sequence[str] = ()
    #: Consumer groups.
    groups: Sequence[str] = ()
    reasons: Sequence[LetterReason] = ()
    statuses: Sequence[LetterStatus] = ()

    def selects_every_letter(self) -> bool:
        """Return whether no condition is set."""
        return not any(asdict(self).values())

    def arguments(self) -> tuple[Any, ...]:
        """Return the parameters $1 to $6 of the query ``selected_letters``."""
        keys = [key.encode() for key in self.keys]
        lists = (self.ids, keys, self.event_types, self.groups, self.reasons, self.statuses)
        return tuple(list(values) or None for values in lists)

    def as_json(self) -> str:
        """Return the conditions that are set as JSON, for the record of an action."""
        return to_json({name: values for name, values in asdict(self).items() if values}).decode()


@dataclass(frozen=True, kw_only=True, slots=True)
class Letter:
    """One dead letter without the content of its message, which may contain personal data."""

    id: int
    consumer_group: str
    topic: str
    partition: int
    message_offset: int
    #: Bytes that are not UTF-8 are written as ``\\xff``; None for a message without a key.
    message_key: str | None
    #: None if the message is not an event.
    event_id: UUID | None
    event_type: str | None
    reason: LetterReason
    error_code: str
    #: Class and text of the last error; secrets are redacted.
    error: str
    #: Number of attempts of the handler, including those of replays.
    attempts: int
    #: Whether later messages of the key wait until this letter is replayed or discarded.
    holds_key: bool
    status: LetterStatus
    parked_at: datetime
    #: Time at which the letter was replayed or discarded; None before.
    resolved_at: datetime | None
    #: The operator of the replay or the discard, and the reason. None while PARKED.
    resolved_by: str | None
    resolved_reason: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LetterDetails:
    """One dead letter with its headers, its message and the actions of operators on it."""

    letter: Letter
    #: Number of unresolved letters of the key that wait behind this one.
    behind: int
    #: Headers of the message by name. Headers without the prefix ``ce_`` are left out unless the payload was
    #: requested, because they may contain personal data.
    headers: Mapping[str, Any]
    #: Value of the message: the parsed JSON; if it is not JSON, the text; if it is not UTF-8, the bytes as
    #: ``{"base64": …}``. None unless requested.
    payload: Any
    #: Actions of operators on the letter, oldest first, each with ``at``, ``by``, ``act`` and ``reason``.
    acts: Sequence[Mapping[str, Any]]


def letter_from_record(record: Mapping[str, Any]) -> Letter:
    """Convert a record of the query ``all_letters`` to a letter."""
    values: dict[str, Any] = {field.name: record[field.name] for field in fields(Letter)}
    key: bytes | None = record["message_key"]
    values["message_key"] = None if key is None else key.decode(errors="backslashreplace")
    values |= {"reason": LetterReason(record["reason"]), "status": LetterStatus(record["status"])}
    return Letter(**values)


async def list_letters(db: Executor, selection: LetterSelection, *, letters_max: int) -> list[Letter]:
    """Return the first *letters_max* selected letters by id, without the content of their messages.

    Replayed and discarded letters are left out unless *selection* names ids or statuses.

    Raises:
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    found = await db.fetch(_LIST, *selection.arguments(), letters_max)
    return [letter_from_record(record) for record in found]


async def show_letter(db: Executor, letter_id: int, *, with_payload: bool = False) -> LetterDetails:
    """Return one dead letter with its headers and the actions of operators on the letter.

    Args:
        db: A connection.
        letter_id: Id of the letter (``dead_letters.id``).
        with_payload: Whether to return the message's value and all headers, which may contain personal data.

    Raises:
        SelectionEmpty: There is no such letter.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    found = await db.fetch(_SHOW, letter_id, with_payload)
    if not found:
        raise SelectionEmpty(
            f"there is no dead letter {letter_id}; `relaybox dead-letters list` shows the dead letters"
        )
    [record] = found
    headers = dict(record["headers"])
    return LetterDetails(
        letter=letter_from_record(record),
        behind=record["behind"],
        headers={
            name: value for name, value in headers.items() if with_payload or name.startswith(_PUBLIC_HEADERS)
        },
        payload=_readable(record["value"]),
        acts=record["acts"],
    )


def _readable(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        return from_json(value)
    except ValueError:
        pass
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
