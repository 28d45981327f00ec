"""A message as it came from Kafka, and the event in it."""

from dataclasses import dataclass, field
from typing import Any, Final, cast

from pydantic import ValidationError
from pydantic_core import from_json
from relaybox_types.envelope import EventEnvelope

from relaybox.consumers._errors import EnvelopeInvalid

__all__ = ("Message", "Partition", "parse_event", "type_in_headers")

#: Topic and number.
Partition = tuple[str, int]
_TYPE_HEADER: Final = "ce_type"


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message whose headers do not rule out that it is for us."""

    partition: Partition
    offset: int
    #: What the ``ce_type`` header says; null without one.
    header_type: str | None
    value: bytes | None = field(repr=False)


def type_in_headers(headers: Any) -> str | None:
    """The event type by the ``ce_type`` header (G30); None without one, or with one that is not text."""
    for name, value in headers or ():
        if name == _TYPE_HEADER:
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return None


def parse_event(message: Message, *, group: str, event_types: frozenset[str]) -> EventEnvelope | None:
    """The event in *message*; None when its type is not among *event_types*.

    Raises:
        EnvelopeInvalid: it is no event, or not the one its header tells of.
    """
    document = _document(message, group)
    event_type = document.get("event_type")
    if message.header_type is not None and event_type != message.header_type:
        raise _invalid(message, group, "its event_type is not what its ce_type header says")
    if not isinstance(event_type, str):
        raise _invalid(message, group, "it has no event_type")
    if event_type not in event_types:
        return None
    try:
        return EventEnvelope.model_validate(document)
    except ValidationError as error:
        # Names of fields only: the values may be what a user wrote.
        fields = sorted({".".join(map(str, problem["loc"])) or "envelope" for problem in error.errors()})
        raise _invalid(message, group, f"malformed {', '.join(fields)}") from None


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


def _invalid(message: Message, group: str, reason: str) -> EnvelopeInvalid:
    topic, partition = message.partition
    return EnvelopeInvalid(
        group=group, topic=topic, partition=partition, offset=message.offset, reason=reason
    )
