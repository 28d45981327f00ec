"""Read messages from Kafka and the events in them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE
from pydantic import ValidationError
from pydantic_core import from_json
from relaybox_types.envelope import EventEnvelope

from relaybox.consumers._errors import EnvelopeInvalid
from relaybox.kafka import headers_of

__all__ = (
    "Headers",
    "Message",
    "Partition",
    "header_value",
    "message_from_kafka",
    "parse_event",
    "read_event",
)

#: A topic's name and a partition's number.
Partition = tuple[str, int]
#: Names and values of headers; a name may occur again.
Headers = Sequence[tuple[str, bytes | None]]
_TYPE_HEADER: Final = "ce_type"
_CONTENT_TYPE_HEADER: Final = "content-type"
#: The prefix of a structured CloudEvent's content type, and the only format supported here.
_STRUCTURED: Final = "application/cloudevents"
_STRUCTURED_JSON: Final = "application/cloudevents+json"
_SPEC_VERSION: Final = "1.0"


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message as Kafka delivered it, or as a dead letter stores it (then without a timestamp)."""

    partition: Partition
    offset: int
    key: bytes | None = None
    value: bytes | None = field(repr=False)
    headers: Headers = field(default=(), repr=False)
    #: When the producer or the broker created the message, in seconds since 1970; 0.0 if the message has no
    #: timestamp.
    created_at_s: float = 0.0

    @property
    def header_type(self) -> str | None:
        """The ``ce_type`` header; None if it is missing."""
        return header_value(self.headers, _TYPE_HEADER)

    @property
    def content_type(self) -> str | None:
        """The ``content-type`` header, which shows a CloudEvent's mode (binary or structured), or None."""
        return header_value(self.headers, _CONTENT_TYPE_HEADER)

    @property
    def bytes(self) -> int:
        """Size in bytes of the key, the value and the headers together."""
        headers = sum(len(name.encode()) + len(value or b"") for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers


def header_value(headers: Any, name: str) -> str | None:
    """Return the value of the first header called *name* as text (G30).

    Bytes that are not UTF-8 become U+FFFD. Returns None if the header is missing or has no value.
    """
    for header, value in headers or ():
        if header == name:
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return None


def message_from_kafka(message: Any) -> Message:
    """Convert a message of a ``confluent_kafka.Consumer``."""
    kind, created_at_ms = message.timestamp()
    return Message(
        partition=(message.topic(), message.partition()),
        offset=message.offset(),
        key=message.key(),
        value=message.value(),
        headers=tuple(headers_of(message)),
        created_at_s=0.0 if kind == TIMESTAMP_NOT_AVAILABLE else created_at_ms / 1000,
    )


def read_event(message: Any, *, reader: str) -> EventEnvelope:
    """Read the event in a message of a ``confluent_kafka.Consumer``.

    The message may be a CloudEvent in binary or in structured mode (G30). The payload of the event keeps the
    version in which it was published.

    Args:
        message: The message.
        reader: Name of the calling program; the text of an error has it.

    Raises:
        EnvelopeInvalid: The message is not an event, or the type of the CloudEvent differs from the
            ``event_type`` of the envelope in it.
    """
    converted = message_from_kafka(message)
    return _event(converted, reader, _envelope(converted, reader))


def parse_event(message: Message, *, group: str, event_types: frozenset[str]) -> EventEnvelope | None:
    """Read the event in *message*; return None if its type is not in *event_types*.

    Args:
        message: A CloudEvent in binary or in structured mode.
        group: Name of the consumer group; the text of an error has it.
        event_types: Types to read; the fields of an event of another type are not checked.

    Raises:
        EnvelopeInvalid: The message is not an event, or the type of the CloudEvent differs from the
            ``event_type`` of the envelope in it.
    """
    document = _envelope(message, group)
    return _event(message, group, document) if document["event_type"] in event_types else None


def _event(message: Message, group: str, document: dict[str, Any]) -> EventEnvelope:
    try:
        return EventEnvelope.model_validate(document)
    except ValidationError as error:
        # The error has only the names of the fields, because their values may be private.
        fields = sorted({".".join(map(str, problem["loc"])) or "envelope" for problem in error.errors()})
        raise _invalid(message, group, f"malformed {', '.join(fields)}") from None


def _envelope(message: Message, group: str) -> dict[str, Any]:
    """Return the envelope in *message* as a dict, after a check of its ``event_type``.

    Raises:
        EnvelopeInvalid: The value is not a JSON object, or ``event_type`` is not a string, or it differs from
            the type of the CloudEvent.
    """
    cloudevent_type, document = message.header_type, _document(message, group)
    if (message.content_type or "").lower().startswith(_STRUCTURED):
        cloudevent_type, document = _unwrapped(message, group, document)
    event_type = document.get("event_type")
    if cloudevent_type is not None and event_type != cloudevent_type:
        raise _invalid(message, group, "its event_type differs from the type of its CloudEvent")
    if not isinstance(event_type, str):
        raise _invalid(message, group, "it has no event_type")
    return document


def _document(message: Message, group: str) -> dict[str, Any]:
    if message.value is None:
        raise _invalid(message, group, "it has no value")
    try:
        document = from_json(message.value)
    except ValueError:
        raise _invalid(message, group, "its value is not JSON") from None
    if not isinstance(document, dict):
        raise _invalid(message, group, "its value is not a JSON object")
    return cast("dict[str, Any]", document)


def _unwrapped(message: Message, group: str, event: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the type of *event*, a structured CloudEvent, and the envelope that is its ``data``."""
    media_type = (message.content_type or "").partition(";")[0].strip().lower()
    if media_type != _STRUCTURED_JSON:
        raise _invalid(message, group, f"its content-type is not {_STRUCTURED_JSON}")
    if event.get("specversion") != _SPEC_VERSION:
        raise _invalid(message, group, f"it is not a CloudEvent {_SPEC_VERSION}")
    data = event.get("data")
    if not isinstance(data, dict):
        raise _invalid(message, group, "its data is not a JSON object")
    return event.get("type"), cast("dict[str, Any]", data)


def _invalid(message: Message, group: str, reason: str) -> EnvelopeInvalid:
    topic, partition = message.partition
    return EnvelopeInvalid(
        group=group, topic=topic, partition=partition, offset=message.offset, reason=reason
    )
