"""Convert outbox rows to Kafka records, as CloudEvents 1.0 (G30); select the publishable rows. No I/O."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic import AwareDatetime, TypeAdapter, ValidationError
from pydantic_core import to_json

from relaybox.kafka import TOPIC_CHARS_MAX
from relaybox.outbox import RawRecord, is_cloudevent_attribute, parse_record, source_of
from relaybox.relay._errors import (
    EnvelopeIncomplete,
    PartitionUnavailable,
    RecordTooLarge,
    RowFault,
    TopicNameTooLong,
    TopicUnknown,
)
from relaybox.settings import CloudEventsMode
from relaybox.topics import UnavailablePartitions

__all__ = (
    "STRUCTURED_HEADERS",
    "Attributes",
    "Header",
    "Message",
    "Record",
    "Screened",
    "headers_of",
    "is_event",
    "message_of",
    "record_bytes",
    "record_of",
    "screen",
    "structured",
    "topics_exceeded",
    "withhold",
)

Header = tuple[str, str]
#: A header of a record that is no event.
RawHeader = tuple[str, bytes | None]
_Text = str | None
#: Key, value and headers of a record.
Record = tuple[str | bytes | None, bytes | None, Sequence[Header | RawHeader]]
#: Attributes of a row's event, None if missing in the envelope: id, type, time, subject, correlation id,
#: causation id, name of the source service, traceparent.
Attributes = tuple[_Text, _Text, _Text, _Text, _Text, _Text, _Text, _Text]
#: The only header of structured mode. The Kafka binding of CloudEvents allows copies of the attributes in
#: headers, but readers such as the official SDK then parse the message in binary mode.
STRUCTURED_HEADERS: Final[Sequence[Header]] = (
    ("content-type", "application/cloudevents+json; charset=UTF-8"),
)
_FIXED: Final[tuple[Header, ...]] = (("ce_specversion", "1.0"), ("content-type", "application/json"))
#: Names of attributes by names of headers.
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
#: Limit for texts from the metadata, so that the outbox can bound a record's size at the insert (G34).
_TEXT_CHARS_MAX: Final = 255
#: RFC 3339, section 5.6.
_TIME: Final = re.compile(
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?"
    r"(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_INSTANT: Final = TypeAdapter[Any](AwareDatetime)
#: Number of event types, and of keys, with cached headers; texts over 512 characters are not cached.
_KINDS_MAX: Final = 256
_KEYS_MAX: Final = 4_096
_REMEMBERED_CHARS_MAX: Final = 512
#: Header of a record batch; then follow, per record: length, attributes, two deltas, key, value, headers.
#: https://kafka.apache.org/documentation/#recordbatch
_BATCH_HEADER_BYTES: Final = 61
#: Upper bound of a record's size: value and key, times 5 because percent-encoded header values repeat parts
#: of both, plus names and framing. Nearly all rows are within the limit by this bound alone.
_COPIES_MAX: Final = 5
_OVERHEAD_BYTES_MAX: Final = 1_024
#: Most bytes of a character in UTF-8.
_CHAR_BYTES_MAX: Final = 4


def is_event(attributes: Attributes) -> bool:
    """Return whether *attributes* have an id and a valid type, which a CloudEvent requires."""
    event_type = attributes[1]
    if attributes[0] is None or event_type is None:
        return False
    short = len(event_type) <= _REMEMBERED_CHARS_MAX
    return _is_type(event_type) if short else is_cloudevent_attribute(event_type)


def headers_of(key: str | None, attributes: Attributes) -> list[Header]:
    """Return the headers of a record in binary mode.

    Optional attributes that are missing or not valid in a CloudEvent are left out.

    Args:
        key: Key of the row.
        attributes: Attributes for which :func:`is_event` is True.
    """
    event_id, event_type, time, subject, correlation_id, causation_id, source, traceparent = attributes
    assert event_id is not None
    assert event_type is not None
    headers = [*_headers_of_kind(event_type, (source or "")[:_TEXT_CHARS_MAX]), ("ce_id", event_id)]
    # Separate statements, because filtering a list of all headers takes twice as long, and in a backlog the
    # relay spends a tenth of its time here.
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
    """Return the value of a record in structured mode: JSON of the attributes in *headers* and *data*."""
    attributes = to_json({_ATTRIBUTES[name]: text for name, text in headers})
    return b'%b,"data":%b}' % (attributes[:-1], data)


@lru_cache(maxsize=_KINDS_MAX)
def _is_type(text: str) -> bool:
    return is_cloudevent_attribute(text)


@lru_cache(maxsize=_KINDS_MAX)
def _headers_of_kind(event_type: str, service: str) -> tuple[Header, ...]:
    """Return the headers that are equal for all events of a type and a service."""
    return (*_FIXED, ("ce_type", event_type), ("ce_source", source_of(service)))


@lru_cache(maxsize=_KEYS_MAX)
def _headers_of_key(subject: str | None, key: str | None) -> tuple[Header, ...]:
    """Return the headers that are equal for all events of a subject and a key."""
    found = (("ce_subject", subject), ("ce_partitionkey", key))
    return tuple((name, text) for name, text in found if text is not None and is_cloudevent_attribute(text))


def _is_trace(text: str) -> bool:
    return 0 < len(text) <= _TEXT_CHARS_MAX and text.isascii() and text.isprintable()


def _normalized(time: str) -> str | None:
    """Return *time* in the format of RFC 3339; None if *time* is no time with a time zone."""
    try:
        instant = _INSTANT.validate_python(time)
    except ValidationError:
        return None
    # An offset with seconds cannot be written in RFC 3339.
    return None if instant.utcoffset() % timedelta(minutes=1) else instant.isoformat().replace("+00:00", "Z")


class Message(NamedTuple):
    """A fetched outbox row. A tuple, because the relay creates 50,000 per second in a backlog."""

    #: ``event_outbox.seq``.
    seq: int
    #: Number of the lane (slice of keys) from which the row was fetched.
    lane: int
    #: Epoch of the lane at that time; the row is marked only if the lane still has this epoch.
    epoch: int
    topic: str
    #: Rows of a key are published in commit order (G21); None for a row without a key, which has no order.
    key: str | None
    #: Number of failed attempts so far.
    attempts: int
    #: The row's payload, JSON in UTF-8: the envelope of an event, or a stored Kafka record that is no event.
    envelope: bytes
    attributes: Attributes
    cloudevents: CloudEventsMode
    #: Id of the row; unlike ``seq``, it is not reused after a failover.
    row_id: UUID
    #: Partition for a row without a key, set while a partition of its topic accepts no writes; -1: librdkafka
    #: chooses the partition.
    partition: int = -1


class Screened(NamedTuple):
    """Rows divided by :func:`screen`, before any of them is sent."""

    publishable: list[Message]
    faulty: list[tuple[Message, RowFault]]


def message_of(row: Sequence[Any], cloudevents: CloudEventsMode = "binary") -> Message:
    """Return the message of *row*, a result of the query ``fetch_batch`` with its order of columns."""
    # Columns are accessed by position, because access by name takes twice as long.
    return Message._make((*row[:7], row[8:], cloudevents, row[7], -1))


def record_of(message: Message) -> Record:
    """Return key, value and headers of the record of *message*, which :func:`screen` found publishable.

    Call this in the publishing thread, because in a backlog the event loop is the bottleneck.
    """
    _, _, _, _, key, _, envelope, attributes, cloudevents, _, _ = message
    if attributes[1] is None and (record := _raw_record(message)) is not None:
        return record.key, record.value, record.headers
    headers = headers_of(key, attributes)
    if cloudevents == "structured":
        return key, structured(headers, envelope), [*STRUCTURED_HEADERS]
    return key, envelope, headers


def _key_of(message: Message) -> str | bytes | None:
    """Return the key of the record of *message*, by which Kafka chooses the partition."""
    record = _raw_record(message)
    return message.key if record is None else record.key


def _raw_record(message: Message) -> RawRecord | None:
    """Return the record in the payload of *message*; None if the payload is an event, or faulty."""
    return parse_record(message.envelope) if message.attributes[1] is None else None


def screen(messages: Iterable[Message], limits: Mapping[str, int]) -> Screened:
    """Divide *messages* into publishable and faulty rows, in order.

    A row is faulty if its topic does not exist, or if its record exceeds the limit of the topic. A row is
    also faulty if its payload is neither an event with a valid id and type nor a stored Kafka record. Later
    rows with the key of a faulty row are in neither part: they must not be published before that row (G34).

    Args:
        messages: Rows in the order of ``seq``.
        limits: ``max.message.bytes`` by topic; a topic that is missing here does not exist.
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

    The relay reads the limits of these topics again before the rows count as failed, because an operator may
    have raised a limit (G24).
    """
    return frozenset(message.topic for message, fault in screened.faulty if isinstance(fault, RecordTooLarge))


def withhold(
    messages: Sequence[Message], unavailable: Mapping[str, UnavailablePartitions]
) -> tuple[list[Message], list[tuple[Message, PartitionUnavailable]]]:
    """Withhold messages whose partition accepts no writes.

    Args:
        messages: Messages in the order of ``seq``.
        unavailable: State, by name, of each topic with a partition that accepts no writes.

    Returns:
        The messages to publish, and the messages to postpone, each with the reason. Of each key, at most one
        message is postponed. Later messages of this key, on any topic, are in neither list: they stay PENDING
        behind the postponed message. A message without a key gets a partition that accepts writes; it is
        postponed if its topic has none.
    """
    free: list[Message] = []
    held: list[tuple[Message, PartitionUnavailable]] = []
    waiting: set[str] = set()
    for message in messages:
        topic = unavailable.get(message.topic)
        if message.key in waiting:
            continue
        if topic is None:
            free.append(message)
        elif (key := _key_of(message)) is not None:
            if (reason := topic.reason(key)) is None:
                free.append(message)
            else:
                held.append((message, PartitionUnavailable(reason)))
                if message.key is not None:
                    waiting.add(message.key)
        elif (partition := topic.next_available()) is not None:
            free.append(message._replace(partition=partition))
        else:
            held.append((message, PartitionUnavailable(next(iter(topic.reasons.values())))))
    return free, held


def record_bytes(key: str | bytes | None, value: bytes | None, headers: Sequence[Header | RawHeader]) -> int:
    """Return the bytes of a record batch with only this record: the size that the topic's limit restricts."""
    body = 1 + 1 + 1 + _field_bytes(key) + _field_bytes(value) + _varint_bytes(len(headers))
    body += sum(_field_bytes(name) + _field_bytes(content) for name, content in headers)
    return _BATCH_HEADER_BYTES + _varint_bytes(body) + body


def _fault_of(message: Message, bytes_max: int | None) -> RowFault | None:
    if len(message.topic) > TOPIC_CHARS_MAX:
        return TopicNameTooLong(
            f"the topic name {message.topic[:TOPIC_CHARS_MAX]!r}… has {len(message.topic)} characters, "
            f"Kafka allows {TOPIC_CHARS_MAX}; correct the program that wrote the row, and skip the row"
        )
    if bytes_max is None:
        return TopicUnknown(f"the broker has no topic {message.topic!r}; create it, or check OUTBOX_TOPICS")
    is_no_event = not is_event(message.attributes)
    raw = _raw_record(message) if is_no_event else None
    if is_no_event and raw is None:
        return EnvelopeIncomplete(
            "the payload has no event_id, or no event_type that is valid in a CloudEvent; "
            "write events with save_to_outbox, and skip this row"
        )
    size = record_bytes(*record_of(message)) if raw is None else record_bytes(raw.key, raw.value, raw.headers)
    if size > bytes_max:
        return RecordTooLarge(
            f"the record takes {size} bytes; max.message.bytes of {message.topic!r} is {bytes_max}; raise it "
            "with `relaybox topics raise-limit` and retry the row, or skip the row"
        )
    return None


def _field_bytes(content: str | bytes | None) -> int:
    """Return the number of bytes of a field with its length prefix; the length of null is -1."""
    if content is None:
        return _varint_bytes(-1)
    size = len(content.encode()) if isinstance(content, str) else len(content)
    return _varint_bytes(size) + size


def _varint_bytes(number: int) -> int:
    """Return the number of bytes of *number* as a zigzag varint (Protocol Buffers)."""
    zigzag = number << 1 if number >= 0 else (-number << 1) - 1
    return max(1, -(-zigzag.bit_length() // 7))
