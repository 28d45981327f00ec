"""Assert what was published on the real topics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from pydantic_core import to_json
from relaybox_types.envelope import EventEnvelope

from relaybox.consumers import EnvelopeInvalid, read_event
from relaybox.db import Database
from relaybox.events import EventType
from relaybox.operations import Row
from relaybox.testing._relay import describe_rows, unpublished_rows
from relaybox.testing._topics import Topics

__all__ = ("PublishedAssertion",)

_SHOWN_MAX: Final = 20
_PAYLOAD_CHARS_MAX: Final = 200


@dataclass(frozen=True, kw_only=True)
class _Published:
    """A message that was published since the test began."""

    #: Position of the message: ``topic[partition]@offset``.
    where: str
    topic: str
    #: Key of the message as text; None for a message without a key.
    key: str | None
    #: None if the message is not an event.
    event: EventEnvelope | None

    def __str__(self) -> str:
        if self.event is None:
            return f"  {self.where}  key={self.key!r}  not an event"
        payload = to_json(self.event.payload).decode()
        if len(payload) > _PAYLOAD_CHARS_MAX:
            payload = payload[:_PAYLOAD_CHARS_MAX] + "…"
        return f"  {self.where}  {self.event.event_type}  key={self.key!r}  {payload}"


class PublishedAssertion:
    """Assert that events are on Kafka's topics; the fixture ``assert_published``."""

    def __init__(self, database: Database, topics: Topics) -> None:
        self._database = database
        self._topics = topics

    async def __call__(
        self,
        event_type: str | EventType,
        *,
        key: object = None,
        payload: Mapping[str, Any] | None = None,
        count: int = 1,
        topic: str | None = None,
    ) -> list[EventEnvelope]:
        """Assert that exactly *count* events with these properties were published since the test began.

        Reads the topics once and does not wait: first call ``await relaybox_relay.publish_all()``.

        Args:
            event_type: Name of the events, or their declaration.
            key: Key of the messages, compared as text; None for any.
            payload: Fields and values that the payload must have, also in nested objects; None for any.
            count: Number of events; 0 asserts that none was published and that no unpublished row of the
                outbox has this type, key and topic, whatever the payload of the row.
            topic: Name of the topic; None for all topics.

        Returns:
            The events, oldest first.

        Raises:
            AssertionError: There are fewer or more events. The message shows what was published instead, and
                the rows of the outbox that are not published.
        """
        __tracebackhide__ = True
        name = event_type.name if isinstance(event_type, EventType) else event_type
        messages, _ = await self._topics.read(None if topic is None else [topic])
        published = [_read(message) for message in messages]
        matching = [
            one.event
            for one in published
            if one.event is not None
            and one.event.event_type == name
            and (key is None or one.key == str(key))
            and (payload is None or _contains(one.event.payload, payload))
        ]
        rows = await unpublished_rows(self._database)
        hidden = count == 0 and any(_may_match(row, name, key, topic) for row in rows)
        if len(matching) == count and not hidden:
            return matching
        wanted = [
            f"{count} × {name}",
            *([] if key is None else [f"key {str(key)!r}"]),
            *([] if payload is None else [f"payload with {to_json(payload, fallback=repr).decode()}"]),
            *([] if topic is None else [f"topic {topic!r}"]),
        ]
        lines = [f"expected {', '.join(wanted)}; published: {len(matching)}", *_listed(published)]
        if rows:
            lines.append(
                "Rows of the outbox that are not published (`await relaybox_relay.publish_all()` publishes "
                "those that are neither FAILED nor behind a FAILED row):"
            )
            lines.append(describe_rows(rows))
        raise AssertionError("\n".join(lines))


def _may_match(row: Row, event_type: str, key: object, topic: str | None) -> bool:
    """Return whether an outbox row has this event type, key and topic; the payload is not compared."""
    same_key = key is None or row.key == str(key)
    return row.event_type == event_type and same_key and (topic is None or row.topic == topic)


def _listed(published: Sequence[_Published]) -> list[str]:
    if not published:
        return ["Nothing was published since the test began."]
    left_out = len(published) - _SHOWN_MAX
    return [
        "Published since the test began:",
        *(str(one) for one in published[-_SHOWN_MAX:]),
        *([f"  and {left_out} before"] if left_out > 0 else []),
    ]


def _read(message: Any) -> _Published:
    key = message.key()
    try:
        event = read_event(message, reader="assert_published")
    except EnvelopeInvalid:
        event = None
    return _Published(
        where=f"{message.topic()}[{message.partition()}]@{message.offset()}",
        topic=message.topic(),
        key=None if key is None else key.decode(errors="backslashreplace"),
        event=event,
    )


def _contains(value: Any, expected: Any) -> bool:
    """Return whether *value* equals *expected* or, if both are objects, contains the fields of *expected*."""
    if not (isinstance(expected, Mapping) and isinstance(value, Mapping)):
        return value == expected
    fields, actual = cast("Mapping[str, Any]", expected), cast("Mapping[str, Any]", value)
    return all(name in actual and _contains(actual[name], part) for name, part in fields.items())
