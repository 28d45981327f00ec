"""Outbox rows as Kafka records: CloudEvents 1.0 (G30). Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic import AwareDatetime, TypeAdapter, ValidationError
from pydantic_core import to_json

from relaybox.kafka import TOPIC_CHARS_MAX
from relaybox.outbox import is_cloudevent_attribute, source_of
from relaybox.relay._errors import (
    EnvelopeIncomplete,
    RecordTooLarge,
    RowFault,
    TopicNameTooLong,
    TopicUnknown,
)
from relaybox.settings import CloudEventsMode

__all__ = (
    "STRUCTURED_HEADERS",
    "Attributes",
    "Header",
    "Message",
    "Screened",
    "headers_of",
    "is_event",
    "message_of",
    "record_bytes",
    "record_of",
    "screen",
    "structured",
    "topics_exceeded",
)

Header = tuple[str, str]
_Text = str | None
#: Attributes of a row's event: id, type, time, subject, correlation id, causation id, source, traceparent.
Attributes = tuple[_Text, _Text, _Text, _Text, _Text, _Text, _Text, _Text]
#: The only header of structured mode. The Kafka binding allows copies of the attributes in headers, but
#: readers, the official SDK among them, take a message with ``ce_`` headers for one in binary mode.
STRUCTURED_HEADERS: Final[Sequence[Header]] = (
    ("content-type", "application/cloudevents+json; charset=UTF-8"),
)
_FIXED: Final[tuple[Header, ...]] = (("ce_specversion", "1.0"), ("content-type", "application/json"))
#: Names of headers to names of attributes.
_ATTRIBUTES: Final = {
    "content-type": "datacontenttype",
    **{
        f"ce_{name}": name
        for name in (
            *("specversion", "id", "type", "source", "time", "subject"),
            *("partitionkey", "correlationid", "causationid", "traceparent"),
        )
    },
}
#: Characters of free text from the metadata; bounded, so that the outbox can predict a record's size (G34).
_TEXT_CHARS_MAX: Final = 255
#: RFC 3339, section 5.6.
_TIME: Final = re.compile(
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?"
    r"(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_INSTANT: Final = TypeAdapter[Any](AwareDatetime)
#: How many event types and keys have cached headers; longer keys are not cached.
_KINDS_MAX: Final = 256
_KEYS_MAX: Final = 4_096
_REMEMBERED_CHARS_MAX: Final = 512
#: A batch of one record: header 61 bytes, then length, attributes, two deltas, key, value, headers.
#: https://kafka.apache.org/documentation/#recordbatch
_BATCH_HEADER_BYTES: Final = 61
#: Upper bounds of a record's size, in either mode: header values are parts of value and key, at worst
#: percent-encoded; names and framing are constant. Nearly every row passes without the exact count.
_COPIES_MAX: Final = 5
_OVERHEAD_BYTES_MAX: Final = 1_024
#: Bytes of one character in UTF-8 at most.
_CHAR_BYTES_MAX: Final = 4


def is_event(attributes: Attributes) -> bool:
    """Return whether *attributes* have what a CloudEvent requires: an id and a type."""
    event_type = attributes[1]
    if attributes[0] is None or event_type is None:
        return False
    short = len(event_type) <= _REMEMBERED_CHARS_MAX
    return _is_type(event_type) if short else is_cloudevent_attribute(event_type)


def headers_of(key: str | None, attributes: Attributes) -> list[Header]:
    """Return the headers in binary mode; *attributes* must satisfy :func:`is_event`.

    An optional attribute without a value, or with one that no CloudEvent may have, is left out.
    """
    event_id, event_type, time, subject, correlation_id, causation_id, source, traceparent = attributes
    assert event_id is not None
    assert event_type is not None
    headers = [*_headers_of_kind(event_type, (source or "")[:_TEXT_CHARS_MAX]), ("ce_id", event_id)]
    # One by one: filtering a list of all headers takes twice as long, and in a backlog the relay spends a
    # tenth of its time here.
    if time is not None and (_TIME.fullmatch(time) or (time := _normalized(time)) is not None):
        headers.append(("ce_time", time))
    short = len(subject or "") + len(key or "") <= _REMEMBERED_CHARS_MAX
    headers += _headers_of_key(subject, key) if short else _headers_of_key.__wrapped__(subject, key)
    if correlation_id is not None:
        headers.append(("ce_correlationid", correlation_id))
    if causation_id is not None:
        headers.append(("ce_causationid", causation_id))
    if traceparent is not None and _is_trace(traceparent):
        headers.append(("ce_traceparent", traceparent))
    return headers


def structured(headers: Sequence[Header], data: bytes) -> bytes:
    """Return the value in structured mode: the attributes in *headers*, and *data*, the stored JSON."""
    attributes = to_json({_ATTRIBUTES[name]: text for name, text in headers})
    return b'%b,"data":%b}' % (attributes[:-1], data)


@lru_cache(maxsize=_KINDS_MAX)
def _is_type(text: str) -> bool:
    return is_cloudevent_attribute(text)


@lru_cache(maxsize=_KINDS_MAX)
def _headers_of_kind(event_type: str, service: str) -> tuple[Header, ...]:
    """Return the headers that all events of a type and a service share."""
    return (*_FIXED, ("ce_type", event_type), ("ce_source", source_of(service)))


@lru_cache(maxsize=_KEYS_MAX)
def _headers_of_key(subject: str | None, key: str | None) -> tuple[Header, ...]:
    """Return the headers that all events of a key share."""
    found = (("ce_subject", subject), ("ce_partitionkey", key))
    return tuple((name, text) for name, text in found if text is not None and is_cloudevent_attribute(text))


def _is_trace(text: str) -> bool:
    return 0 < len(text) <= _TEXT_CHARS_MAX and text.isascii() and text.isprintable()


def _normalized(time: str) -> str | None:
    """Return *time* in RFC 3339; None if it is not a time."""
    try:
        instant = _INSTANT.validate_python(time)
    except ValidationError:
        return None
    # RFC 3339 has no seconds in an offset.
    return None if instant.utcoffset() % timedelta(minutes=1) else instant.isoformat().replace("+00:00", "Z")


class Message(NamedTuple):
    """One outbox row, ready to publish. A tuple, because a backlog creates 50,000 of them a second."""

    seq: int
    #: The lane it was fetched from, and the lane's epoch then: the fence for marking it.
    lane: int
    epoch: int
    topic: str
    #: Rows of one key are published in the order of ``seq``; rows without a key have no order.
    key: str | None
    #: Failures so far that were charged to the row.
    attempts: int
    #: The envelope as it is stored.
    envelope: bytes
    attributes: Attributes
    cloudevents: CloudEventsMode
    #: Id of the row; unlike ``seq``, it is not reused after a failover.
    row_id: UUID
    #: Partition of a row without a key while another one accepts no writes; -1 lets librdkafka choose.
    partition: int = -1


class Screened(NamedTuple):
    """Rows divided by :func:`screen`, before any of them is sent."""

    publishable: list[Message]
    faulty: list[tuple[Message, RowFault]]


def message_of(row: Sequence[Any], cloudevents: CloudEventsMode = "binary") -> Message:
    """Return the message of one row of the query ``fetch_batch``, with its columns in order."""
    # By position: access by column name takes twice as long.
    return Message._make((*row[:7], row[8:], cloudevents, row[7], -1))


def record_of(message: Message) -> tuple[bytes, list[Header]]:
    """Return value and headers of a *message* that passed :func:`screen`.

    Called in the publishing thread, because in a backlog the event loop has the most work.
    """
    _, _, _, _, key, _, envelope, attributes, cloudevents, _, _ = message
    headers = headers_of(key, attributes)
    if cloudevents == "structured":
        return structured(headers, envelope), [*STRUCTURED_HEADERS]
    return envelope, headers


def screen(messages: Iterable[Message], limits: Mapping[str, int]) -> Screened:
    """Divide *messages* into publishable rows and rows at fault, in order.

    A row is at fault if its topic does not exist, its event has no valid id or type, or its record exceeds
    the topic's limit. Later rows of a faulty row's key are in neither part: they must not be published
    before it (G34).

    Args:
        messages: Rows in the order of ``seq``.
        limits: ``max.message.bytes`` of every topic that exists.
    """
    publishable: list[Message] = []
    faulty: list[tuple[Message, RowFault]] = []
    waiting: set[str] = set()
    room = {topic: (limit - _OVERHEAD_BYTES_MAX) // _COPIES_MAX for topic, limit in limits.items()}
    for message in messages:
        _, _, _, topic, key, _, envelope, attributes, _, _, _ = message
        if waiting and key in waiting:
            continue
        fits = len(envelope) + _CHAR_BYTES_MAX * len(key or "") <= room.get(topic, -1)
        fault = None if fits and is_event(attributes) else _fault_of(message, limits.get(topic))
        if fault is None:
            publishable.append(message)
        else:
            faulty.append((message, fault))
            if key is not None:
                waiting.add(key)
    return Screened(publishable, faulty)


def topics_exceeded(screened: Screened) -> frozenset[str]:
    """Return the topics whose limit a record exceeds.

    The limit may have been raised since it was read, so the relay reads it again before it charges a row
    (G24).
    """
    return frozenset(message.topic for message, fault in screened.faulty if isinstance(fault, RecordTooLarge))


def record_bytes(key: bytes | None, value: bytes, headers: Sequence[Header]) -> int:
    """Return the bytes of a record batch with this record alone, which is what the broker measures."""
    body = 1 + 1 + 1 + _varint_bytes(-1 if key is None else len(key)) + len(key or b"")
    body += _varint_bytes(len(value)) + len(value) + _varint_bytes(len(headers))
    for name, text in headers:
        size = len(text.encode())
        body += _varint_bytes(len(name)) + len(name) + _varint_bytes(size) + size
    return _BATCH_HEADER_BYTES + _varint_bytes(body) + body


def _fault_of(message: Message, bytes_max: int | None) -> RowFault | None:
    if len(message.topic) > TOPIC_CHARS_MAX:
        return TopicNameTooLong(
            f"the topic name {message.topic[:TOPIC_CHARS_MAX]!r}… has {len(message.topic)} characters, "
            f"Kafka allows {TOPIC_CHARS_MAX}; correct the program that wrote the row, and skip the row"
        )
    if bytes_max is None:
        return TopicUnknown(f"the broker has no topic {message.topic!r}; create it, or check OUTBOX_TOPICS")
    if not is_event(message.attributes):
        return EnvelopeIncomplete(
            "the payload has no event_id or no event_type that a CloudEvent may have; "
            "write events with save_to_outbox"
        )
    key = None if message.key is None else message.key.encode()
    size = record_bytes(key, *record_of(message))
    if size > bytes_max:
        return RecordTooLarge(
            f"the record takes {size} bytes; max.message.bytes of {message.topic!r} is {bytes_max}"
        )
    return None


def _varint_bytes(number: int) -> int:
    """Return the bytes of a zigzag varint (Protocol Buffers)."""
    zigzag = number << 1 if number >= 0 else (-number << 1) - 1
    return max(1, -(-zigzag.bit_length() // 7))
