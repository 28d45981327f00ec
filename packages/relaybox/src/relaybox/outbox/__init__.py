"""The outbox: events written with their cause, and the hint that there are some."""

from relaybox.outbox._append import (
    EventIncomplete,
    MessageTooLarge,
    OutboxError,
    OutboxSettings,
    TopicUndeclared,
    check_message,
    save_to_outbox,
)
from relaybox.outbox._listener import Listener
from relaybox.outbox._notifier import OUTBOX_CHANNEL, Notifier, note_for_commit

__all__ = (
    "OUTBOX_CHANNEL",
    "EventIncomplete",
    "Listener",
    "MessageTooLarge",
    "Notifier",
    "OutboxError",
    "OutboxSettings",
    "TopicUndeclared",
    "check_message",
    "note_for_commit",
    "save_to_outbox",
)
