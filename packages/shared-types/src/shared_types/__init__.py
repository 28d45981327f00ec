"""Define models of tables, events, requests and responses that several services of the applications share.

The types that the library needs are defined in ``relaybox_types`` and re-exported here. The applications'
types are in :mod:`~shared_types.genesis`, :mod:`~shared_types.genesis_api`, :mod:`~shared_types.workspace`
and the ``workspace_*_api`` modules. This package needs only Pydantic and ``relaybox_types``.
"""

from relaybox_types.enums import CommandStatus, HandleStatus, OutboxStatus, TaskStatus

from shared_types.events import EventEnvelope, EventTarget, build_event_envelope
from shared_types.genesis import GenesisStage, GenesisStatus
from shared_types.rows import (
    AsyncTask,
    CommandInbox,
    DeadLetter,
    DomainEvent,
    EventOutbox,
    FlowResumeHandle,
    GenesisSession,
    IdempotencyCache,
)

__all__ = (
    "AsyncTask",
    "CommandInbox",
    "CommandStatus",
    "DeadLetter",
    "DomainEvent",
    "EventEnvelope",
    "EventOutbox",
    "EventTarget",
    "FlowResumeHandle",
    "GenesisSession",
    "GenesisStage",
    "GenesisStatus",
    "HandleStatus",
    "IdempotencyCache",
    "OutboxStatus",
    "TaskStatus",
    "build_event_envelope",
)
