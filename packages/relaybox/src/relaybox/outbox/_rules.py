"""Settings ``OUTBOX_…``: topics, routes and limits that an event must meet before its row is written."""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, ClassVar, Final
from urllib.parse import quote

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from relaybox.errors import RelayboxError

__all__ = (
    "MessageTooLarge",
    "OutboxError",
    "OutboxSettings",
    "TopicUndeclared",
    "is_cloudevent_attribute",
    "is_topic_name",
    "source_of",
)

#: ``OUTBOX_ROUTES`` replaces this topic by the topic of the event's domain.
_DEFAULT_TOPIC: Final = "domain-events"
#: At most 249 characters, not . or ..
_TOPIC: Final = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}")
_DOMAIN: Final = re.compile(r"[^\s.,=]+")
#: A number with an exponent in JSON. JSONB writes all its digits: 309 for 1e308, 325 for 5e-324.
_EXPONENT: Final = re.compile(rb"[\[:,]-?[0-9](?:\.[0-9]+)?e[+-]?([0-9]{1,3})")
_EXPONENT_MAX: Final = 324
#: Bytes that the relay adds for a CloudEvent, in binary or structured mode: names of attributes, framing, and
#: the longest values (type and subject 1,020 bytes, source 3,061, traceparent 255).
_ATTRIBUTES_BYTES_MAX: Final = 6_144
#: Size of the key's copies in multiples of the key: 1 for the record's key, and 2 for the attribute
#: ``partitionkey``, in which JSON escapes may double each byte.
_KEY_COPIES_MAX: Final = 3
_NONCHARACTERS: Final = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
#: Name of the service in the source of an event whose metadata has no ``source_service``.
_SERVICE_UNKNOWN: Final = "relaybox"
#: Longer names are cut, so that the attributes have a known maximum size (G34).
_SERVICE_CHARS_MAX: Final = 255
_FORBIDDEN: Final = re.compile(f"[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef{_NONCHARACTERS}]")


class OutboxError(RelayboxError):
    """Base class of errors that refuse an event before its outbox row is written."""

    error_code: ClassVar[str] = "OUTBOX_ERROR"


class TopicUndeclared(OutboxError):
    """Raised when the topic of an event is not in ``OUTBOX_TOPICS``."""

    error_code = "TOPIC_UNDECLARED"


class MessageTooLarge(OutboxError):
    """Raised when an event with its key and headers can be larger than ``OUTBOX_MESSAGE_BYTES_MAX``."""

    error_code = "MESSAGE_TOO_LARGE"


class OutboxSettings(BaseSettings):
    """Topics, routes and limits of events.

    An event that does not meet them is refused before its row is written, and so is the command that emits
    the event. Otherwise the broker would reject the record, and the row would block all later rows of its key
    (G34).
    """

    model_config = SettingsConfigDict(
        env_prefix="OUTBOX_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    #: Comma-separated names of the topics to which events may be published.
    topics: Annotated[str, Field(min_length=1)] = _DEFAULT_TOPIC
    #: Comma-separated ``Domain=topic``: the topic of a domain's events instead of ``domain-events``.
    routes: str | None = None
    #: Limit for value, key and headers; must be below the topic's ``max.message.bytes`` (default 1,048,588).
    message_bytes_max: Annotated[int, Field(ge=1_024, le=64 * 1_048_576)] = 1_000_000

    @field_validator("topics")
    @classmethod
    def _topics_have_names_that_kafka_takes(cls, value: str) -> str:
        for name in _split(value):
            if not is_topic_name(name):
                raise _wrong(
                    f"{name!r} is not a topic name; write names of A-Z a-z 0-9 . _ - with commas between them"
                )
        return value

    @field_validator("routes")
    @classmethod
    def _routes_lead_to_declared_topics(cls, value: str | None, info: ValidationInfo) -> str | None:
        seen = set[str]()
        for route in _split(value or ""):
            domain, equals, topic = (part.strip() for part in route.partition("="))
            if not (equals and _DOMAIN.fullmatch(domain) and topic):
                raise _wrong(f"{route!r} is not a route; write Domain=topic, the domain without a dot")
            if domain in seen:
                raise _wrong(f"{domain} has two routes; keep one")
            if "topics" in info.data and topic not in _split(info.data["topics"]):
                known = info.data["topics"]
                raise _wrong(
                    f"topic {topic!r} of {domain} is not declared; add it to OUTBOX_TOPICS ({known})"
                )
            seen.add(domain)
        return value

    def declared(self) -> frozenset[str]:
        """Return the declared topics."""
        return self._declared

    def topic_for(self, event_type: str, topic: str = _DEFAULT_TOPIC) -> str:
        """Return the topic to which an event is published.

        If *topic* is ``domain-events``, this is the topic of the route of the event's domain, or *topic* if
        the domain has no route. The domain is the part of *event_type* before the first dot. A route applies
        to a whole domain, so that all events of an aggregate have one topic and keep their order. Any other
        *topic* was chosen by the application and is returned unchanged.
        """
        return self._by_domain.get(event_type.partition(".")[0], topic) if topic == _DEFAULT_TOPIC else topic

    def require_declared(self, topic: str) -> None:
        """Check that events may be published to *topic*.

        Raises:
            TopicUndeclared: The topic is not in ``OUTBOX_TOPICS``.
        """
        if topic not in self._declared:
            declared = ", ".join(sorted(self._declared))
            raise TopicUndeclared(f"topic {topic!r} is not declared; add it to OUTBOX_TOPICS ({declared})")

    def check(self, topic: str, key: str | None, value: bytes) -> None:
        """Check that the relay can publish an event.

        Args:
            topic: Topic of the event, after routing.
            key: Key of the record; None for a record without a key.
            value: The envelope as JSON without blanks, in UTF-8.

        Raises:
            TopicUndeclared: The topic is not in ``OUTBOX_TOPICS``.
            MessageTooLarge: An upper bound of the size of value, key and headers is above
                ``OUTBOX_MESSAGE_BYTES_MAX``.
        """
        self.require_declared(topic)
        size = _stored_bytes(value) + _KEY_COPIES_MAX * len((key or "").encode()) + _ATTRIBUTES_BYTES_MAX
        if size > self.message_bytes_max:
            raise MessageTooLarge(
                f"the event for key {key!r} takes {size} bytes, the limit is {self.message_bytes_max}; "
                "send a smaller payload, or raise OUTBOX_MESSAGE_BYTES_MAX"
            )

    @cached_property
    def _declared(self) -> frozenset[str]:
        return frozenset(_split(self.topics))

    @cached_property
    def _by_domain(self) -> Mapping[str, str]:
        pairs = (route.partition("=") for route in _split(self.routes or ""))
        return {domain.strip(): topic.strip() for domain, _, topic in pairs}


def is_topic_name(name: str) -> bool:
    """Return whether Kafka accepts *name* as the name of a topic.

    See https://kafka.apache.org/documentation/#topicconfigs.
    """
    return _TOPIC.fullmatch(name) is not None


def is_cloudevent_attribute(text: str) -> bool:
    """Return whether CloudEvents allow *text* as the value of an attribute.

    The value must not be empty, and must not contain control characters or noncharacters of Unicode.
    """
    return bool(text) and (text.isprintable() or not _FORBIDDEN.search(text))


def source_of(service: str | None) -> str:
    """Return the ``ce_source`` of an event: the name of its service as a URI path, such as ``/orders``.

    Args:
        service: ``source_service`` in the metadata of the event. The function uses its first 255
            characters, or ``relaybox`` if it is None or empty.
    """
    # ce_source is a URI-reference: the name of the service as a path.
    path = quote((service or "")[:_SERVICE_CHARS_MAX] or _SERVICE_UNKNOWN, safe="/").lstrip("/")
    return f"/{path}"


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text else []


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("setting", "{message}", {"message": message})


def _stored_bytes(value: bytes) -> int:
    """Return an upper bound of the bytes of *value* as JSONB text, with blanks and expanded exponents."""
    digits = sum(min(int(exponent), _EXPONENT_MAX) for exponent in _EXPONENT.findall(value))
    return len(value) + value.count(b",") + value.count(b":") + digits
