"""The outbox: events written with their cause, and the hint that there are some."""

from relaybox.outbox._append import EventIncomplete, save_to_outbox
from relaybox.outbox._listener import Listener
from relaybox.outbox._notifier import OUTBOX_CHANNEL, Notifier, note_for_commit
from relaybox.outbox._rules import (
    MessageTooLarge,
    OutboxError,
    OutboxSettings,
    TopicUndeclared,
    fits_attribute,
)

__all__ = (
    "OUTBOX_CHANNEL",
    "EventIncomplete",
    "Listener",
    "MessageTooLarge",
    "Notifier",
    "OutboxError",
    "OutboxSettings",
    "TopicUndeclared",
    "fits_attribute",
    "note_for_commit",
    "save_to_outbox",
)
