"""The outbox: events written with their cause, the hint that there are some, and how old ones leave."""

from relaybox.outbox._append import (
    EventIncomplete,
    SessionNotAsync,
    admit_envelope,
    admit_event,
    save_to_outbox,
)
from relaybox.outbox._listener import Listener
from relaybox.outbox._notifier import OUTBOX_CHANNEL, Notifier, channel_of, note_for_commit
from relaybox.outbox._retention import RetentionStep, retain
from relaybox.outbox._rules import (
    MessageTooLarge,
    OutboxError,
    OutboxSettings,
    TopicUndeclared,
    fits_attribute,
    source_of,
)

__all__ = (
    "OUTBOX_CHANNEL",
    "EventIncomplete",
    "Listener",
    "MessageTooLarge",
    "Notifier",
    "OutboxError",
    "OutboxSettings",
    "RetentionStep",
    "SessionNotAsync",
    "TopicUndeclared",
    "admit_envelope",
    "admit_event",
    "channel_of",
    "fits_attribute",
    "note_for_commit",
    "retain",
    "save_to_outbox",
    "source_of",
)
