"""Declare commands in domains, decide them by pure functions, and write each batch in one statement."""

from relaybox.commands._append_events import InboxCommand, append_events, settle_command
from relaybox.commands._decide import Caller, Command, CommandResult, KeyedResponse, metadata_of
from relaybox.commands._domain import Aggregate, Domain, Handler, SnapshotQueries
from relaybox.commands._errors import (
    AggregateNotFound,
    CommandError,
    CommandRefused,
    ConstraintViolated,
    DuplicateCommand,
    PayloadInvalid,
    StaleVersion,
    UnknownCommand,
    VersionGap,
)
from relaybox.commands._service import AggregateView, CommandService
from relaybox.events import Event, Events, EventType, Settlement

__all__ = (
    "Aggregate",
    "AggregateNotFound",
    "AggregateView",
    "Caller",
    "Command",
    "CommandError",
    "CommandRefused",
    "CommandResult",
    "CommandService",
    "ConstraintViolated",
    "Domain",
    "DuplicateCommand",
    "Event",
    "EventType",
    "Events",
    "Handler",
    "InboxCommand",
    "KeyedResponse",
    "PayloadInvalid",
    "Settlement",
    "SnapshotQueries",
    "StaleVersion",
    "UnknownCommand",
    "VersionGap",
    "append_events",
    "metadata_of",
    "settle_command",
)
