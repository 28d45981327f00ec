"""Parse records of topics into the fields that a verification compares. No I/O."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple, cast

from pydantic_core import from_json

from relaybox.kafka import headers_of
from relaybox.outbox import RECORD_ID_HEADER

__all__ = ("Partition", "TopicRecord", "record_of")

#: Name of the topic, number of the partition.
Partition = tuple[str, int]
_ID_HEADER: Final = "ce_id"
_SOURCE_HEADER: Final = "ce_source"
_TIME_HEADER: Final = "ce_time"
_STRUCTURED: Final = b"application/cloudevents"


class TopicRecord(NamedTuple):
    """One record of a topic. A tuple, because a verification creates 100,000 per second."""

    topic: str
    partition: int
    offset: int
    #: Id of the CloudEvent. For a record that is not an event and was published from the outbox, such as a
    #: dead letter: the id in its header ``relaybox_record_id``. None for any other record.
    event_id: str | None
    #: None for a record without a key. Also None for a record that is not an event and was published from the
    #: outbox, because the order of such records is not compared.
    key: str | None
    #: The CloudEvent's time if its source is a service of this database; None for every other record.
    own_event_at: datetime | None = None


def record_of(message: Any, sources: Collection[str] = ()) -> TopicRecord:
    """Return the fields of *message* to compare; *message* need not be a CloudEvent.

    Args:
        message: A ``confluent_kafka.Message`` without an error.
        sources: Values of ``ce_source`` of this database's services; if empty, ``own_event_at`` is None.
    """
    key, headers = message.key(), headers_of(message)
    if headers and headers[0][0] == RECORD_ID_HEADER:
        record_id = _storable(headers[0][1] or b"")
        return TopicRecord(message.topic(), message.partition(), message.offset(), record_id, None)
    return TopicRecord(
        message.topic(),
        message.partition(),
        message.offset(),
        _event_id(headers, message),
        None if key is None else _storable(key),
        _own_event_at(headers, message, sources) if sources else None,
    )


def _event_id(headers: Iterable[tuple[str, bytes | str | None]], message: Any) -> str | None:
    """Return the id of a CloudEvent in binary or structured mode; None for any other record."""
    structured = False
    for name, value in headers:
        if name == _ID_HEADER and value is not None:
            return _storable(value.encode() if isinstance(value, str) else value)
        if name == "content-type" and isinstance(value, bytes):
            structured = value.startswith(_STRUCTURED)
    event_id = _structured_attributes(message.value()).get("id") if structured else None
    return _storable(event_id.encode()) if isinstance(event_id, str) else None


def _own_event_at(
    headers: Iterable[tuple[str, bytes | str | None]], message: Any, sources: Collection[str]
) -> datetime | None:
    """Return the time of a CloudEvent whose source is in *sources*; None for any other message.

    Also None if the time is missing or malformed, or has no zone.
    """
    texts = {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for name, value in headers
    }
    source, time = texts.get(_SOURCE_HEADER), texts.get(_TIME_HEADER)
    if source is None and (texts.get("content-type") or "").startswith(_STRUCTURED.decode()):
        attributes = _structured_attributes(message.value())
        source, time = attributes.get("source"), attributes.get("time")
    if not isinstance(source, str) or source not in sources or not isinstance(time, str):
        return None
    try:
        at = datetime.fromisoformat(time)
    except ValueError:
        return None
    return None if at.tzinfo is None else at


def _structured_attributes(value: bytes | None) -> dict[str, Any]:
    """Return the attributes in the value of a CloudEvent in structured mode; empty for any other value."""
    try:
        document = from_json(value or b"")
    except ValueError:
        return {}
    return cast("dict[str, Any]", document) if isinstance(document, dict) else {}


def _storable(raw: bytes) -> str:
    """Decode *raw* as UTF-8; U+FFFD replaces invalid bytes and NUL, which PostgreSQL cannot store."""
    return raw.decode("utf-8", "replace").replace("\0", "�")
