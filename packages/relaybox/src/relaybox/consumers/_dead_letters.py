"""Write, find and change dead letters, on the caller's connection or session."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic_core import from_json, to_json
from relaybox_types.envelope import EventEnvelope
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.consumers._dead_letter_topic import DeadLetterTopic
from relaybox.consumers._errors import EnvelopeInvalid, KeyBlocked, MessageTooLarge
from relaybox.consumers._key_queue import Parking, Replay, RequestedReplays
from relaybox.consumers._message import Headers, Message, Partition
from relaybox.consumers._statistics import LetterCounts
from relaybox.db import Executor, executor_of, load_queries, map_service_errors
from relaybox.events import EventUpcastFailed, EventVersionUnknown
from relaybox.telemetry import redact_text

__all__ = ("ClaimedLetter", "DeadLetters")

_SQL: Final = load_queries(__package__ or "relaybox.consumers", "consumers.sql")
#: Most characters of an error's text that a dead letter stores.
_ERROR_CHARACTERS_MAX: Final = 2_000
#: Limit of one search in a partition: at most this many keys with requested letters, and at most this many
#: requested letters that block no key.
_KEYS_MAX: Final = 500
#: Most letters that one count reads, which takes a few milliseconds.
_COUNT_MAX: Final = 10_000


class ClaimedLetter(NamedTuple):
    """A letter whose replay has begun, in a transaction that is open.

    *has_event_id* is False if the event could not be read when the message was parked.
    """

    id: int
    message: Message
    has_event_id: bool


class DeadLetters:
    """The dead letters of one group; every method works on a connection or session of the caller."""

    def __init__(self, group: str, topic: DeadLetterTopic | None = None) -> None:
        """*topic* publishes each parked message; None: parked messages are not published."""
        self.group = group
        self._topic = topic

    async def lock_blocking(self, db: Executor, message: Message) -> bool:
        """Lock the last letter that blocks the key of *message*; return False if no letter blocks the key.

        The lock keeps the letter unresolved, and so the key blocked, until the caller's transaction ends.
        """
        with map_service_errors():
            rows = await db.fetch(_SQL["lock_blocking_letter"], self.group, message.partition[0], message.key)
        return bool(rows)

    async def park(
        self,
        db: AsyncSession,
        message: Message,
        event: EventEnvelope | None,
        parking: Parking,
        *,
        holds_key: bool,
    ) -> bool:
        """Park *message*; return False if the group has processed or parked it before.

        Args:
            db: Session of the transaction.
            message: The message.
            event: The event in the message; None if the message is not an event.
            parking: Why the message is parked.
            holds_key: Whether the later messages of the message's key are parked behind it.
        """
        event_id, event_type, *aggregate = _event_columns(event)
        failure = {
            "reason": _reason(parking.failure),
            "error_code": _error_code(parking.failure),
            "error": _error_text(parking.failure),
            "attempts": parking.attempts,
        }
        with map_service_errors():
            rows = await executor_of(db).fetch(
                _SQL["park"],
                self.group,
                *message.partition,
                message.offset,
                message.key,
                event_id,
                event_type,
                _headers_as_json(message.headers),
                message.value,
                *failure.values(),
                holds_key and message.key is not None,
                *aggregate,
            )
            if rows and self._topic is not None:
                letter = {"id": rows[0]["id"], **failure}
                found = None if event is None else (aggregate[0], aggregate[1])
                await self._topic.publish(db, message, found, group=self.group, failure=letter)
        return bool(rows)

    async def requested(self, db: Executor, starts: Mapping[Partition, bytes]) -> list[RequestedReplays]:
        """Return, for each partition, the requested replays that can begin now.

        Args:
            db: The connection.
            starts: See :meth:`relaybox.consumers._replayer.Replayer.requested`.
        """
        topics, numbers = [topic for topic, _ in starts], [number for _, number in starts]
        rows = await db.fetch(
            _SQL["requested_replays"], self.group, topics, numbers, list(starts.values()), _KEYS_MAX
        )
        return [_requested_of(row) for row in rows]

    async def count_unresolved(self, db: Executor) -> LetterCounts:
        """Count the unresolved letters and the keys that they block; reads at most 10,000 letters."""
        [row] = await db.fetch(_SQL["count_unresolved"], self.group, _COUNT_MAX)
        return LetterCounts(letters=row["letters"], keys=row["keys"])

    async def claim_next(self, db: Executor, replay: Replay, after_id: int) -> ClaimedLetter | None:
        """Mark the next letter of *replay* as replayed, and return it; None if its replay is not requested.

        The statement also records that the group has processed the event, and requests the replay of the
        following letter of the key, if that letter was parked only because the key was blocked.

        Args:
            db: The connection of the transaction in which the letter's handler runs next.
            replay: The letters to replay.
            after_id: Id of the key's letter that was replayed last; 0 if none was replayed.
        """
        with map_service_errors():
            rows = await db.fetch(
                *(_SQL["claim_next_letter"], self.group),
                *(replay.partition[0], replay.key, replay.letter_id, after_id),
            )
        if not rows:
            return None
        return ClaimedLetter(
            rows[0]["id"], _message_of(rows[0]), has_event_id=rows[0]["event_id"] is not None
        )

    async def record_replayed(self, db: Executor, event_id: UUID) -> None:
        """Record that the group has processed *event_id*, whose letter was parked without an event id."""
        with map_service_errors():
            await db.fetch(_SQL["record_replayed"], self.group, event_id)

    async def park_again(self, db: Executor, parking: Parking) -> None:
        """Set a letter back to PARKED after its replay failed; an operator may request another replay."""
        await db.fetch(
            _SQL["park_again"],
            parking.letter_id,
            _reason(parking.failure),
            _error_code(parking.failure),
            _error_text(parking.failure),
            parking.attempts,
        )


def _requested_of(row: Mapping[str, Any]) -> RequestedReplays:
    at: Partition = (row["topic"], row["partition"])
    keyed = [Replay(partition=at, key=key, letter_id=None) for key in row["keys"]]
    single = [Replay(partition=at, key=None, letter_id=letter_id) for letter_id in row["letter_ids"]]
    return RequestedReplays(partition=at, replays=keyed + single, next_start=row["last_key_hash"] or b"")


def _message_of(letter: Mapping[str, Any]) -> Message:
    return Message(
        partition=(letter["topic"], letter["partition"]),
        offset=letter["message_offset"],
        key=letter["message_key"],
        value=letter["value"],
        headers=_headers_from_json(letter["headers"]),
    )


def _event_columns(event: EventEnvelope | None) -> Sequence[Any]:
    if event is None:
        return (None,) * 4
    # The names may have U+0000 if Relaybox did not publish the event; PostgreSQL cannot store that character.
    names = (event.event_type, event.aggregate_type, event.aggregate_id)
    return (event.event_id, *map(_storable, names))


def _reason(failure: BaseException) -> str:
    match failure:
        case KeyBlocked():
            return "BLOCKED"
        case EnvelopeInvalid() | MessageTooLarge() | EventVersionUnknown() | EventUpcastFailed():
            return "ENVELOPE_INVALID"
        case _:
            return "HANDLER_FAILED"


def _error_code(failure: BaseException) -> str:
    try:
        code = str(getattr(failure, "error_code", type(failure).__name__))
    except Exception:  # noqa: BLE001 - the application's property may raise anything
        code = type(failure).__name__
    return _storable(code)


def _error_text(failure: BaseException) -> str:
    """Return the error for operators: secrets redacted, bounded, storable in PostgreSQL."""
    try:
        text = str(failure)
    except Exception as error:  # noqa: BLE001 - the application's exception may raise anything
        text = f"(its text cannot be read: {type(error).__name__})"
    return _storable(redact_text(f"{type(failure).__name__}: {text}"))


def _storable(text: str) -> str:
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()[:_ERROR_CHARACTERS_MAX]


def _headers_as_json(headers: Headers) -> str:
    return to_json([[name, _header_value(value)] for name, value in headers]).decode()


def _header_value(value: bytes | str | None) -> str | dict[str, str] | None:
    if not isinstance(value, bytes):
        return value
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    return {"base64": base64.b64encode(value).decode()} if "\0" in text else text


def _headers_from_json(headers: str) -> Headers:
    return [(name, _header_bytes(value)) for name, value in from_json(headers)]


def _header_bytes(value: str | Mapping[str, str] | None) -> bytes | None:
    match value:
        case None:
            return None
        case str():
            return value.encode()
        case _:
            return base64.b64decode(value["base64"])
