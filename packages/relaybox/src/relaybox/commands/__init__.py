"""Commands: declared by a domain, decided by pure functions, taken in one transaction."""

from relaybox.commands._decide import Caller, CommandResult, Keyed, Request, metadata_of
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
from relaybox.commands._facts import Events, EventType, Fact, Settlement
from relaybox.commands._record_facts import TakenCommand, record_facts, settle_command
from relaybox.commands._service import AggregateView, CommandService

__all__ = (
    "Aggregate",
    "AggregateNotFound",
    "AggregateView",
    "Caller",
    "CommandError",
    "CommandRefused",
    "CommandResult",
    "CommandService",
    "ConstraintViolated",
    "Domain",
    "DuplicateCommand",
    "EventType",
    "Events",
    "Fact",
    "Handler",
    "Keyed",
    "PayloadInvalid",
    "Request",
    "Settlement",
    "SnapshotQueries",
    "StaleVersion",
    "TakenCommand",
    "UnknownCommand",
    "VersionGap",
    "metadata_of",
    "record_facts",
    "settle_command",
)
