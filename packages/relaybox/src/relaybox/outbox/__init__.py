"""The outbox: save events in the transaction that causes them, notify relays, remove old rows."""

from relaybox.outbox._append import (
    EventIncomplete,
    SessionNotAsync,
    save_to_outbox,
    validate_envelope,
    validate_event,
)
from relaybox.outbox._listener import Listener
from relaybox.outbox._notifier import OUTBOX_CHANNEL, Notifier, channel_of, notify_on_commit
from relaybox.outbox._raw_record import RECORD_ID_HEADER, RawRecord, append_record, parse_record
from relaybox.outbox._retention import RetentionStep, retain
from relaybox.outbox._rules import (
    MessageTooLarge,
    OutboxError,
    OutboxSettings,
    TopicUndeclared,
    is_cloudevent_attribute,
    is_topic_name,
    source_of,
)

__all__ = (
    "OUTBOX_CHANNEL",
    "RECORD_ID_HEADER",
    "EventIncomplete",
    "Listener",
    "MessageTooLarge",
    "Notifier",
    "OutboxError",
    "OutboxSettings",
    "RawRecord",
    "RetentionStep",
    "SessionNotAsync",
    "TopicUndeclared",
    "append_record",
    "channel_of",
    "is_cloudevent_attribute",
    "is_topic_name",
    "notify_on_commit",
    "parse_record",
    "retain",
    "save_to_outbox",
    "source_of",
    "validate_envelope",
    "validate_event",
)
