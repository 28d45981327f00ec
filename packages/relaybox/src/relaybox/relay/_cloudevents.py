"""What a row says of itself as a CloudEvent 1.0, in the Kafka protocol binding's two modes (G30). Pure.

Binary: attributes are headers, the value is the envelope. Structured: the value is one JSON
object of attributes and the envelope as its ``data``. The names of extensions follow the
documented ones: ``partitionkey`` (Partitioning), ``traceparent`` (Distributed Tracing).
"""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from pydantic import AwareDatetime, TypeAdapter, ValidationError
from pydantic_core import to_json

from relaybox.outbox import fits_attribute

__all__ = ("STRUCTURED_HEADERS", "Header", "headers_of", "structured")

Header = tuple[str, str]

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
#: What an event is said to come from when its metadata does not tell.
_SOURCE_UNKNOWN: Final = "relaybox"
#: Free text of the metadata; bounded, so that the outbox can foresee a record's size (G34).
_TEXT_CHARS_MAX: Final = 255
#: RFC 3339, section 5.6.
_TIME: Final = re.compile(
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?"
    r"(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
)
_INSTANT: Final = TypeAdapter[Any](AwareDatetime)


def headers_of(row: Mapping[str, Any]) -> list[Header]:
    """The headers of a row of ``fetch_batch`` in binary mode; none if it cannot be a CloudEvent.

    An optional attribute without a value, or with one that no CloudEvent may have, is left out.
    """
    event_id, event_type = row["id"], row["type"]
    if event_id is None or _text(event_type) is None:
        return []
    headers = [*_FIXED, ("ce_id", event_id), ("ce_type", event_type), ("ce_source", _source(row["source"]))]
    # One by one: a list of all, filtered, takes twice as long, and a backlog spends a third of its time here.
    if (time := _time(row["time"])) is not None:
        headers.append(("ce_time", time))
    if (subject := _text(row["subject"])) is not None:
        headers.append(("ce_subject", subject))
    if (key := _text(row["key"])) is not None:
        headers.append(("ce_partitionkey", key))
    if (correlation_id := row["correlation_id"]) is not None:
        headers.append(("ce_correlationid", correlation_id))
    if (causation_id := row["causation_id"]) is not None:
        headers.append(("ce_causationid", causation_id))
    if (trace := _trace(row["traceparent"])) is not None:
        headers.append(("ce_traceparent", trace))
    return headers


def structured(headers: Sequence[Header], data: bytes) -> bytes:
    """The value in structured mode: the attributes in *headers* and *data*, which is JSON as it is stored."""
    attributes = to_json({_ATTRIBUTES[name]: text for name, text in headers})
    return b'%b,"data":%b}' % (attributes[:-1], data)


def _text(text: str | None) -> str | None:
    return text if text is not None and fits_attribute(text) else None


def _trace(text: str | None) -> str | None:
    return text if text and len(text) <= _TEXT_CHARS_MAX and text.isascii() and text.isprintable() else None


def _time(text: str | None) -> str | None:
    """``ce_time``; a time that is written in another way is written anew."""
    if text is None or _TIME.fullmatch(text):
        return text
    try:
        instant = _INSTANT.validate_python(text)
    except ValidationError:
        return None
    # RFC 3339 has no seconds in an offset.
    return None if instant.utcoffset() % timedelta(minutes=1) else instant.isoformat().replace("+00:00", "Z")


@lru_cache(maxsize=256)
def _source(service: str | None) -> str:
    """``ce_source``: a URI-reference, the name of the service as a path."""
    return "/" + quote((service or _SOURCE_UNKNOWN)[:_TEXT_CHARS_MAX], safe="/").lstrip("/")
