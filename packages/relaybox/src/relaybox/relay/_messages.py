"""Outbox rows as Kafka records: CloudEvents 1.0 (G30). Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from relaybox.relay._cloudevents import STRUCTURED_HEADERS, Header, headers_of, structured
from relaybox.relay._errors import EnvelopeIncomplete, RecordTooLarge, RowFault, TopicUnknown
from relaybox.settings import CloudEventsMode

__all__ = ("Message", "Screened", "message_of", "record_bytes", "screen")

#: A batch of one record: header 61 bytes, then length, attributes, two deltas, key, value, headers.
#: https://kafka.apache.org/documentation/#recordbatch
_BATCH_HEADER_BYTES: Final = 61
#: Header values are parts of value and key (percent-encoded at the worst), names and framing are constant:
#: no record takes more than this, in either mode. Spares nearly every row the exact count.
_COPIES_MAX: Final = 5
_OVERHEAD_BYTES_MAX: Final = 1_024


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
    value: bytes
    #: Empty if the payload cannot be a CloudEvent.
    headers: list[Header]


class Screened(NamedTuple):
    """A batch, divided by what can be known before anything is sent."""

    publishable: list[Message]
    faulty: list[tuple[Message, RowFault]]


def message_of(row: Mapping[str, Any], cloudevents: CloudEventsMode = "binary") -> Message:
    """The message of one row of the query ``fetch_batch``, in the mode *cloudevents*."""
    headers = headers_of(row)
    value: bytes = row["value"]
    if cloudevents == "structured" and headers:
        value, headers = structured(headers, value), [*STRUCTURED_HEADERS]
    return Message(
        row["seq"],
        row["lane"],
        row["epoch"],
        row["topic"],
        row["key"],
        row["attempts"],
        value,
        headers,
    )


def screen(messages: Iterable[Message], limits: Mapping[str, int]) -> Screened:
    """Divide *messages* into those every broker limit allows and those at fault, in order.

    *limits* has ``max.message.bytes`` for every topic that exists. Rows behind a faulty one of
    their key are in neither part: they wait, or they would land before it (G34).
    """
    publishable: list[Message] = []
    faulty: list[tuple[Message, RowFault]] = []
    waiting: set[str] = set()
    for message in messages:
        if message.key in waiting:
            continue
        fault = _fault_of(message, limits.get(message.topic))
        if fault is None:
            publishable.append(message)
        else:
            faulty.append((message, fault))
            if message.key is not None:
                waiting.add(message.key)
    return Screened(publishable, faulty)


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
    if not message.headers:
        return EnvelopeIncomplete(
            "the payload has no event_id or no event_type that a CloudEvent may have; "
            "write events with save_to_outbox"
        )
    key = None if message.key is None else message.key.encode()
    if _COPIES_MAX * (len(message.value) + len(key or b"")) + _OVERHEAD_BYTES_MAX <= bytes_max:
        return None
    size = record_bytes(key, message.value, message.headers)
    if size > bytes_max:
        return RecordTooLarge(
            f"the record takes {size} bytes; max.message.bytes of {message.topic!r} is {bytes_max}"
        )
    return None


def _varint_bytes(number: int) -> int:
    """Bytes of a zigzag varint (Protocol Buffers)."""
    zigzag = number << 1 if number >= 0 else (-number << 1) - 1
    return max(1, -(-zigzag.bit_length() // 7))
