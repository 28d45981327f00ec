"""What a row says of itself as a CloudEvent 1.0, in the Kafka protocol binding's two modes (G30). Pure.

Binary: attributes are headers, the value is the envelope. Structured: the value is one JSON
object of attributes and the envelope as its ``data``. The names of extensions follow the
documented ones: ``partitionkey`` (Partitioning), ``traceparent`` (Distributed Tracing).
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final

from pydantic import AwareDatetime, TypeAdapter, ValidationError
from pydantic_core import to_json

from relaybox.outbox import is_cloudevent_attribute, source_of

__all__ = ("STRUCTURED_HEADERS", "Attributes", "Header", "headers_of", "is_event", "structured")

Header = tuple[str, str]
_Text = str | None
#: What a row tells of its event: id, type, time, subject, correlation id, causation id, source, traceparent.
Attributes = tuple[_Text, _Text, _Text, _Text, _Text, _Text, _Text, _Text]

#: The one header of structured mode. No copies of the attributes beside it, though the binding allows
#: them: readers tell the modes apart by headers that begin with ``ce_`` (the official SDK does).
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
#: Free text of the metadata; bounded, so that the outbox can foresee a record's size (G34).
_TEXT_CHARS_MAX: Final = 255
#: RFC 3339, section 5.6.
_TIME: Final = re.compile(
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?"
    r"(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_INSTANT: Final = TypeAdapter[Any](AwareDatetime)
#: So many kinds of events and keys are remembered; no key that is longer than this.
_KINDS_MAX: Final = 256
_KEYS_MAX: Final = 4_096
_REMEMBERED_CHARS_MAX: Final = 512


def is_event(attributes: Attributes) -> bool:
    """Whether a CloudEvent can be made of *attributes*: it has an id and a type."""
    event_type = attributes[1]
    if attributes[0] is None or event_type is None:
        return False
    short = len(event_type) <= _REMEMBERED_CHARS_MAX
    return _is_type(event_type) if short else is_cloudevent_attribute(event_type)


def headers_of(key: str | None, attributes: Attributes) -> list[Header]:
    """The headers in binary mode of what :func:`is_event`.

    An optional attribute without a value, or with one that no CloudEvent may have, is left out.
    """
    event_id, event_type, time, subject, correlation_id, causation_id, source, traceparent = attributes
    assert event_id is not None
    assert event_type is not None
    headers = [*_headers_of_kind(event_type, (source or "")[:_TEXT_CHARS_MAX]), ("ce_id", event_id)]
    # One by one: a list of all, filtered, takes twice as long, and a backlog spends a tenth of its time here.
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
    """The value in structured mode: the attributes in *headers* and *data*, which is JSON as it is stored."""
    attributes = to_json({_ATTRIBUTES[name]: text for name, text in headers})
    return b'%b,"data":%b}' % (attributes[:-1], data)


@lru_cache(maxsize=_KINDS_MAX)
def _is_type(text: str) -> bool:
    return is_cloudevent_attribute(text)


@lru_cache(maxsize=_KINDS_MAX)
def _headers_of_kind(event_type: str, service: str) -> tuple[Header, ...]:
    """What all events of a type and a service have in common."""
    return (*_FIXED, ("ce_type", event_type), ("ce_source", source_of(service)))


@lru_cache(maxsize=_KEYS_MAX)
def _headers_of_key(subject: str | None, key: str | None) -> tuple[Header, ...]:
    """What all events of a key have in common."""
    found = (("ce_subject", subject), ("ce_partitionkey", key))
    return tuple((name, text) for name, text in found if text is not None and is_cloudevent_attribute(text))


def _is_trace(text: str) -> bool:
    return 0 < len(text) <= _TEXT_CHARS_MAX and text.isascii() and text.isprintable()


def _normalized(time: str) -> str | None:
    """``ce_time`` of a time that is written in another way; None if it is none."""
    try:
        instant = _INSTANT.validate_python(time)
    except ValidationError:
        return None
    # RFC 3339 has no seconds in an offset.
    return None if instant.utcoffset() % timedelta(minutes=1) else instant.isoformat().replace("+00:00", "Z")
