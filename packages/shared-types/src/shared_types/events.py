"""The event envelope of the backbone, re-exported, and what the applications' events can be about."""

from enum import StrEnum

from relaybox_types.envelope import EventEnvelope, build_event_envelope

__all__ = ("EventEnvelope", "EventTarget", "build_event_envelope")


class EventTarget(StrEnum):
    """What kind of thing an event is about."""

    GENESIS_SESSION = "GENESIS_SESSION"
    NODE = "NODE"
    STUDY = "STUDY"
    CHAPTER = "CHAPTER"
    DISCUSSION = "DISCUSSION"
    SHARE = "SHARE"
    OTHER = "OTHER"
