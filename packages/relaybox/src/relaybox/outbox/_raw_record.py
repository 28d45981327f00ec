"""Records that are no events: key, value and headers as bytes, in the payload of an outbox row.

The payload is ``{"event_id", "aggregate_type", "aggregate_id", "record": {"key", "value", "headers"}}``: key,
value and the values of headers in base64, or null. ``event_id`` is the record's own id, which ``verify``
compares with the header ``relaybox_record_id``; an erasure finds the row by the aggregate. The payload of
an event has an ``event_type``, and this payload has none: so the relay distinguishes the two.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from pydantic import BaseModel
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.db import executor_of, load_queries
from relaybox.outbox._notifier import notify_on_commit

__all__ = ("RECORD_ID_HEADER", "RawRecord", "append_record", "parse_record")

_SQL: Final = load_queries(__package__ or "relaybox.outbox", "outbox.sql")
#: Name of the first header of each record that is no event; the header's value is the record's id.
RECORD_ID_HEADER: Final = "relaybox_record_id"
#: Upper bounds in bytes: of the framing of a record together with its id header, and of the framing of each
#: other header.
_RECORD_BYTES_MAX: Final = 160
_HEADER_BYTES_MAX: Final = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class RawRecord:
    """A Kafka record as a consumer receives it; a key, value or header value of None is null in Kafka."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

    @property
    def bytes_max(self) -> int:
        """Upper bound of the record's size in its topic, in bytes."""
        headers = sum(
            len(name.encode()) + len(value or b"") + _HEADER_BYTES_MAX for name, value in self.headers
        )
        return len(self.key or b"") + len(self.value or b"") + headers + _RECORD_BYTES_MAX


class _StoredRecord(BaseModel):
    key: str | None
    value: str | None
    headers: list[tuple[str, str | None]]


class _Payload(BaseModel):
    record: _StoredRecord


async def append_record(
    db: AsyncSession,
    topic: str,
    record: RawRecord,
    *,
    order_key: str | None,
    aggregate: tuple[str, str] | None,
) -> None:
    """Write *record* to the outbox, in the transaction of *db*; the relay publishes its bytes unchanged.

    Args:
        db: Session of the caller's transaction.
        topic: Topic of the record. It need not be in ``OUTBOX_TOPICS``, and ``OUTBOX_ROUTES`` does not apply.
        record: The record; it gets one more header, ``relaybox_record_id``, before the others.
        order_key: Key of the row: rows with one key are published in order, and a row that cannot be
            published blocks the later rows of its key. None: no order.
        aggregate: Type and id of the aggregate that the content is about: an erasure of this aggregate erases
            the content of the row. None if unknown.
    """
    record_id = str(uuid4())
    about = {} if aggregate is None else {"aggregate_type": aggregate[0], "aggregate_id": aggregate[1]}
    headers = [(RECORD_ID_HEADER, record_id.encode()), *record.headers]
    stored = {
        "key": _encoded(record.key),
        "value": _encoded(record.value),
        "headers": [(name, _encoded(value)) for name, value in headers],
    }
    payload = to_json({"event_id": record_id, **about, "record": stored}).decode()
    await executor_of(db).fetch(_SQL["append"], topic, order_key, payload)
    notify_on_commit(db, order_key or record_id)


def parse_record(payload: bytes) -> RawRecord | None:
    """Return the record in the payload of an outbox row; None if the payload contains no record."""
    try:
        stored = _Payload.model_validate_json(payload).record
        return RawRecord(
            key=_decoded(stored.key),
            value=_decoded(stored.value),
            headers=[(name, _decoded(value)) for name, value in stored.headers],
        )
    except ValueError:
        return None


def _encoded(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)
