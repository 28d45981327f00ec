"""Outbox rows as Kafka records: CloudEvents 1.0 (G30). Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from relaybox.relay._cloudevents import (
    STRUCTURED_HEADERS,
    Attributes,
    Header,
    headers_of,
    is_event,
    structured,
)
from relaybox.relay._errors import EnvelopeIncomplete, RecordTooLarge, RowFault, TopicUnknown
from relaybox.settings import CloudEventsMode

__all__ = (
    "Message",
    "Screened",
    "message_of",
    "record_bytes",
    "record_of",
    "screen",
    "topics_exceeded",
)

#: A batch of one record: header 61 bytes, then length, attributes, two deltas, key, value, headers.
#: https://kafka.apache.org/documentation/#recordbatch
_BATCH_HEADER_BYTES: Final = 61
#: Header values are parts of value and key (percent-encoded at the worst), names and framing are constant:
#: no record takes more than this, in either mode. Spares nearly every row the exact count.
_COPIES_MAX: Final = 5
_OVERHEAD_BYTES_MAX: Final = 1_024
#: Of a character in UTF-8.
_CHAR_BYTES_MAX: Final = 4


class Message(NamedTuple):
    """One outbox row, ready to publish. A tuple, because a backlog makes 50,000 of them a second."""

    seq: int
    #: The lane it was fetched from, and the lane's epoch then: the fence for marking it.
    lane: int
    epoch: int
    topic: str
    #: Rows of one key are published in the order of ``seq``; a row without a key waits for nobody.
    key: str | None
    #: Failures so far through the row's own fault.
    attempts: int
    #: The envelope as it is stored.
    envelope: bytes
    attributes: Attributes
    cloudevents: CloudEventsMode
    #: The row's own: after a failover another row may have its ``seq``.
    row_id: UUID
    #: Where to publish a row without a key; -1: where librdkafka chooses, as for all that have one.
    partition: int = -1


class Screened(NamedTuple):
    """A batch, divided by what can be known before anything is sent."""

    publishable: list[Message]
    faulty: list[tuple[Message, RowFault]]


def message_of(row: Sequence[Any], cloudevents: CloudEventsMode = "binary") -> Message:
    """The message of one row of the query ``fetch_batch``, its columns in order."""
    # By position: names take twice as long.
    return Message._make((*row[:7], row[8:], cloudevents, row[7], -1))


def record_of(message: Message) -> tuple[bytes, list[Header]]:
    """Value and headers of a *message* that passed :func:`screen`.

    Made by the thread that hands them to Kafka: the fetching one has the most to do in a backlog.
    """
    _, _, _, _, key, _, envelope, attributes, cloudevents, _, _ = message
    headers = headers_of(key, attributes)
    if cloudevents == "structured":
        return structured(headers, envelope), [*STRUCTURED_HEADERS]
    return envelope, headers


def screen(messages: Iterable[Message], limits: Mapping[str, int]) -> Screened:
    """Divide *messages* into those every broker limit allows and those at fault, in order.

    *limits* has ``max.message.bytes`` for every topic that exists. Rows behind a faulty one of
    their key are in neither part: they wait, or they would land before it (G34).
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

    The limit may have been raised since it was read: it is read again before a row is charged (G24).
    """
    return frozenset(message.topic for message, fault in screened.faulty if isinstance(fault, RecordTooLarge))


def record_bytes(key: bytes | None, value: bytes, headers: Sequence[Header]) -> int:
    """Bytes of a record batch that holds this record alone, which is what the broker measures."""
    body = 1 + 1 + 1 + _varint_bytes(-1 if key is None else len(key)) + len(key or b"")
    body += _varint_bytes(len(value)) + len(value) + _varint_bytes(len(headers))
    for name, text in headers:
        size = len(text.encode())
        body += _varint_bytes(len(name)) + len(name) + _varint_bytes(size) + size
    return _BATCH_HEADER_BYTES + _varint_bytes(body) + body


def _fault_of(message: Message, bytes_max: int | None) -> RowFault | None:
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
    """Bytes of a zigzag varint (Protocol Buffers)."""
    zigzag = number << 1 if number >= 0 else (-number << 1) - 1
    return max(1, -(-zigzag.bit_length() // 7))
