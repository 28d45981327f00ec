"""Create events for tests."""

from typing import Any
from uuid import UUID, uuid4

from relaybox_types.envelope import EventEnvelope, build_event_envelope

from relaybox.events import EventType

__all__ = ("make_event",)


def make_event(
    event_type: str | EventType,
    payload: dict[str, Any] | None = None,
    *,
    aggregate_id: str | UUID | None = None,
    version: int = 1,
    **fields: Any,
) -> EventEnvelope:
    """Return an event as another service would publish it, with a new id.

    Args:
        event_type: Name of the event, or its declaration; a declaration also sets the event's version.
        payload: The payload; None for an empty one.
        aggregate_id: Id of the aggregate, which is also the key of the message; None generates a new id.
        version: Version of the aggregate after this event.
        fields: Other fields of :func:`relaybox_types.envelope.build_event_envelope`, for example
            ``event_id``, ``actor_id``, ``correlation_id`` (by default a new id) or ``aggregate_type`` (by
            default the second part of the event's name in capitals: ``ACCOUNT`` for ``Bank.Account.Opened``).
    """
    name = event_type.name if isinstance(event_type, EventType) else event_type
    if isinstance(event_type, EventType):
        fields.setdefault("event_version", event_type.version)
    parts = name.split(".")
    fields.setdefault("aggregate_type", parts[1 if len(parts) > 1 else 0].upper())
    fields.setdefault("correlation_id", uuid4())
    return build_event_envelope(
        event_type=name,
        aggregate_id=str(aggregate_id or uuid4()),
        version=version,
        payload=payload,
        **fields,
    )
