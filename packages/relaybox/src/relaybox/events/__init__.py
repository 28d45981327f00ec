"""Domain events: publishing each once, reading streams and chains."""

from relaybox.events._bus import EventBus
from relaybox.events._errors import EventError, EventIdInvalid, EventIdReused
from relaybox.events._ids import EVENT_ID_NAMESPACE, event_uuid
from relaybox.events._read import fetch_chain, fetch_recent, fetch_stream, iterate_streams
from relaybox.events._record import RecordedEvent

__all__ = (
    "EVENT_ID_NAMESPACE",
    "EventBus",
    "EventError",
    "EventIdInvalid",
    "EventIdReused",
    "RecordedEvent",
    "event_uuid",
    "fetch_chain",
    "fetch_recent",
    "fetch_stream",
    "iterate_streams",
)
