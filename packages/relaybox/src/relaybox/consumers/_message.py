"""A message as it came from Kafka, and the event in it."""

from dataclasses import dataclass, field
from typing import Any, Final, cast

from pydantic import ValidationError
from pydantic_core import from_json
from relaybox_types.envelope import EventEnvelope

from relaybox.consumers._errors import EnvelopeInvalid

__all__ = ("Message", "Partition", "header_value", "message_from_kafka", "parse_event", "read_event")

#: Topic and number.
Partition = tuple[str, int]
_TYPE_HEADER: Final = "ce_type"
_CONTENT_TYPE_HEADER: Final = "content-type"
#: What the content type of a CloudEvent in structured mode begins with, and the only format read here.
_STRUCTURED: Final = "application/cloudevents"
_STRUCTURED_JSON: Final = "application/cloudevents+json"
_SPEC_VERSION: Final = "1.0"


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message whose headers do not rule out that it is for us."""

    partition: Partition
    offset: int
    #: What the ``ce_type`` header says; null without one.
    header_type: str | None
    #: The ``content-type`` header, which tells the modes of a CloudEvent apart; null without one.
    content_type: str | None = None
    value: bytes | None = field(repr=False)


def header_value(headers: Any, name: str) -> str | None:
    """The header called *name* (G30); None without one, or with one that is not text."""
    for one, value in headers or ():
        if one == name:
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return None


def message_from_kafka(message: Any) -> Message:
    """The message that a ``confluent_kafka.Consumer`` has read."""
    headers = message.headers()
    return Message(
        partition=(message.topic(), message.partition()),
        offset=message.offset(),
        header_type=header_value(headers, _TYPE_HEADER),
        content_type=header_value(headers, _CONTENT_TYPE_HEADER),
        value=message.value(),
    )


def read_event(message: Any, *, reader: str) -> EventEnvelope:
    """The event in a message of a ``confluent_kafka.Consumer``, a CloudEvent in either mode (G30).

    For a *reader* that is no :class:`Consumer` of this package.

    Raises:
        EnvelopeInvalid: it is no event, or not the one its CloudEvent tells of.
    """
    taken = message_from_kafka(message)
    return _event(taken, reader, _envelope(taken, reader))


def parse_event(message: Message, *, group: str, event_types: frozenset[str]) -> EventEnvelope | None:
    """The event in *message*, a CloudEvent in either mode; None when its type is not among *event_types*.

    Raises:
        EnvelopeInvalid: it is no event, or not the one its CloudEvent tells of.
    """
    document = _envelope(message, group)
    return _event(message, group, document) if document["event_type"] in event_types else None


def _event(message: Message, group: str, document: dict[str, Any]) -> EventEnvelope:
    try:
        return EventEnvelope.model_validate(document)
    except ValidationError as error:
        # Names of fields only: the values may be what a user wrote.
        fields = sorted({".".join(map(str, problem["loc"])) or "envelope" for problem in error.errors()})
        raise _invalid(message, group, f"malformed {', '.join(fields)}") from None


def _envelope(message: Message, group: str) -> dict[str, Any]:
    """The envelope as JSON; its ``event_type`` is a text, and the one that the CloudEvent tells of."""
    told, document = message.header_type, _document(message, group)
    if (message.content_type or "").lower().startswith(_STRUCTURED):
        told, document = _unwrapped(message, group, document)
    event_type = document.get("event_type")
    if told is not None and event_type != told:
        raise _invalid(message, group, f"its event_type is not what its {_TYPE_HEADER} says")
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
    """The type that the CloudEvent *event* tells of, and the envelope in it."""
    media_type = (message.content_type or "").partition(";")[0].strip().lower()
    if media_type != _STRUCTURED_JSON:
        raise _invalid(message, group, f"its content-type is not {_STRUCTURED_JSON}")
    if event.get("specversion") != _SPEC_VERSION:
        raise _invalid(message, group, f"it is no CloudEvent {_SPEC_VERSION}")
    data = event.get("data")
    if not isinstance(data, dict):
        raise _invalid(message, group, "its data is not a JSON object")
    return event.get("type"), cast("dict[str, Any]", data)


def _invalid(message: Message, group: str, reason: str) -> EnvelopeInvalid:
    topic, partition = message.partition
    return EnvelopeInvalid(
        group=group, topic=topic, partition=partition, offset=message.offset, reason=reason
    )
