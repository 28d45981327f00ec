"""Domain events: publish each once, read those of an aggregate or of a chain, erase their content."""

from relaybox.events._bus import EventBus
from relaybox.events._erase import Erasure, erase
from relaybox.events._errors import EventError, EventIdInvalid, EventIdReused
from relaybox.events._ids import EVENT_ID_NAMESPACE, event_uuid
from relaybox.events._read import fetch_chain, fetch_recent, fetch_stream, iterate_streams
from relaybox.events._record import RecordedEvent

__all__ = (
    "EVENT_ID_NAMESPACE",
    "Erasure",
    "EventBus",
    "EventError",
    "EventIdInvalid",
    "EventIdReused",
    "RecordedEvent",
    "erase",
    "event_uuid",
    "fetch_chain",
    "fetch_recent",
    "fetch_stream",
    "iterate_streams",
)
