"""Declare types of domain events, publish an event once, read recorded events, and erase their content."""

from relaybox.events._bus import EventBus
from relaybox.events._erase import Erasure, erase
from relaybox.events._errors import (
    EventError,
    EventIdInvalid,
    EventIdReused,
    EventTypeInvalid,
    EventUnreadable,
    EventUpcastFailed,
    EventVersionUnknown,
)
from relaybox.events._event_type import Event, Events, EventType, Settlement, Upcaster
from relaybox.events._ids import EVENT_ID_NAMESPACE, event_uuid
from relaybox.events._read import fetch_chain, fetch_recent, fetch_stream, iterate_streams
from relaybox.events._record import RecordedEvent
from relaybox.events._upcasting import EventTypes

__all__ = (
    "EVENT_ID_NAMESPACE",
    "Erasure",
    "Event",
    "EventBus",
    "EventError",
    "EventIdInvalid",
    "EventIdReused",
    "EventType",
    "EventTypeInvalid",
    "EventTypes",
    "EventUnreadable",
    "EventUpcastFailed",
    "EventVersionUnknown",
    "Events",
    "RecordedEvent",
    "Settlement",
    "Upcaster",
    "erase",
    "event_uuid",
    "fetch_chain",
    "fetch_recent",
    "fetch_stream",
    "iterate_streams",
)
