"""One model per table, one enumeration per type, the event envelope and the API's models, for all services.

What the backbone needs itself is defined in ``relaybox_types`` and re-exported here. The applications' types
are in :mod:`~shared_types.genesis`, :mod:`~shared_types.genesis_api`, :mod:`~shared_types.workspace` and the
``workspace_*_api`` modules. Depends on Pydantic and ``relaybox_types`` alone.
"""

from relaybox_types.enums import CommandStatus, HandleStatus, OutboxStatus, TaskStatus

from shared_types.events import EventEnvelope, EventTarget, build_event_envelope
from shared_types.genesis import GenesisStage, GenesisStatus
from shared_types.rows import (
    AsyncTask,
    CommandInbox,
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
