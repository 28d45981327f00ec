"""Re-export the library's event envelope, and define the kinds of objects that events can be about."""

from enum import StrEnum

from relaybox_types.envelope import EventEnvelope, build_event_envelope

__all__ = ("EventEnvelope", "EventTarget", "build_event_envelope")


class EventTarget(StrEnum):
    """The kind of object that an event is about (``target_type`` of the envelope)."""

    GENESIS_SESSION = "GENESIS_SESSION"
    NODE = "NODE"
    STUDY = "STUDY"
    CHAPTER = "CHAPTER"
    DISCUSSION = "DISCUSSION"
    SHARE = "SHARE"
    OTHER = "OTHER"
