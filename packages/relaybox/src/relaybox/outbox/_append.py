"""Writing events to the outbox, inside the caller's transaction."""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Final
from uuid import UUID

from pydantic import Field, ValidationError
from pydantic_core import to_json
from pydantic_settings import BaseSettings, SettingsConfigDict
from relaybox_types.envelope import EventEnvelope
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.db import executor_of, holds_nul, load_queries
from relaybox.errors import RelayboxError
from relaybox.outbox._notifier import note_for_commit
from relaybox.settings import load_settings

__all__ = (
    "EventIncomplete",
    "MessageTooLarge",
    "OutboxError",
    "OutboxSettings",
    "TopicUndeclared",
    "check_message",
    "save_to_outbox",
)

_SQL: Final = load_queries(__package__ or "relaybox.outbox", "outbox.sql")
_REQUIRED: Final = ("event_id", "event_type", "aggregate_type", "aggregate_id", "correlation_id")
#: Room for the CloudEvents headers the relay adds; their values stand in the envelope and are bounded there.
_HEADERS_BYTES_MAX: Final = 4_096


class OutboxError(RelayboxError):
    """Base of the reasons for which an event is refused before it is written."""

    error_code: ClassVar[str] = "OUTBOX_ERROR"


class EventIncomplete(OutboxError):
    """Raised when an event lacks what a reader needs to place it."""

    error_code = "EVENT_INCOMPLETE"


class TopicUndeclared(OutboxError):
    """Raised when an event is meant for a topic that ``OUTBOX_TOPICS`` does not name."""

    error_code = "TOPIC_UNDECLARED"


class MessageTooLarge(OutboxError):
    """Raised when an event with its key and headers is over ``OUTBOX_MESSAGE_BYTES_MAX``."""

    error_code = "MESSAGE_TOO_LARGE"


class OutboxSettings(BaseSettings):
    """What may be written to the outbox.

    Checked when the row is written, because a row that no broker takes holds back its whole
    key (G34): better a refused command than a stopped session.
    """

    model_config = SettingsConfigDict(
        env_prefix="OUTBOX_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    #: Comma-separated names of the topics that events may go to.
    topics: Annotated[str, Field(min_length=1)] = "domain-events"
    #: Bytes of value, key and headers; below the topic's ``max.message.bytes`` (1,048,588 by default).
    message_bytes_max: Annotated[int, Field(ge=1_024, le=64 * 1_048_576)] = 1_000_000

    def declared(self) -> frozenset[str]:
        """The declared topics."""
        return frozenset(name.strip() for name in self.topics.split(","))


@cache
def _limits() -> tuple[frozenset[str], int]:
    settings = load_settings(OutboxSettings)
    return settings.declared(), settings.message_bytes_max


def check_message(topic: str, key: str | None, value: bytes) -> None:
    """Refuse what the relay could not publish.

    Raises:
        TopicUndeclared: the topic is not among ``OUTBOX_TOPICS``.
        MessageTooLarge: value, key and headers together are over the limit.
    """
    topics, bytes_max = _limits()
    if topic not in topics:
        raise TopicUndeclared(
            f"topic {topic!r} is not declared; add it to OUTBOX_TOPICS ({', '.join(sorted(topics))})"
        )
    # JSONB prints a blank after every comma and colon; the broker counts those too.
    size = len(value) + value.count(b",") + value.count(b":") + len((key or "").encode()) + _HEADERS_BYTES_MAX
    if size > bytes_max:
        raise MessageTooLarge(f"the event for key {key!r} takes {size} bytes, the limit is {bytes_max}")


async def save_to_outbox(topic: str, key: str, payload: Mapping[str, Any], db: AsyncSession) -> UUID:
    """Record an event for Kafka; it is published if, and only if, *db* commits.

    *payload* is the full envelope (:class:`relaybox_types.EventEnvelope`) and becomes the
    message's value; *key* decides its partition and its order. Returns the outbox row's id.

    Raises:
        EventIncomplete: a required field is missing or malformed, ``causation_id`` is not
            present (null is allowed for a first event), or a text holds NUL.
        TopicUndeclared: see :func:`check_message`.
        MessageTooLarge: see :func:`check_message`.
    """
    missing = [name for name in _REQUIRED if payload.get(name) is None]
    if "causation_id" not in payload:
        missing.append("causation_id (null for a first event)")
    if missing:
        raise EventIncomplete(f"the event lacks {', '.join(missing)}")
    try:
        value = to_json(payload)
        EventEnvelope.model_validate_json(value)
    except (ValidationError, ValueError) as error:
        raise EventIncomplete(f"the event is not an envelope: {_first_line(error)}") from error
    if holds_nul(value):
        raise EventIncomplete("the event holds the NUL character (U+0000), which PostgreSQL cannot store")
    check_message(topic, key, value)
    rows = await executor_of(db).fetch(_SQL["append"], topic, key, value.decode())
    note_for_commit(db, key)
    return rows[0]["id"]


def _first_line(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return str(error)
