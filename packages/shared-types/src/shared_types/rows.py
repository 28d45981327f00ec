"""Define the model of Genesis' table, and re-export the models of the library's tables.

A test compares each model with its table in a migrated PostgreSQL: name, type, nullability,
default and enum labels.
"""

from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, Field
from relaybox_types.rows import (
    AsyncTask,
    CommandInbox,
    DeadLetter,
    DomainEvent,
    EventOutbox,
    FlowResumeHandle,
    IdempotencyCache,
    Row,
)

from shared_types.genesis import GenesisStage, GenesisStatus

__all__ = (
    "AsyncTask",
    "CommandInbox",
    "DeadLetter",
    "DomainEvent",
    "EventOutbox",
    "FlowResumeHandle",
    "GenesisSession",
    "IdempotencyCache",
)

Document = dict[str, Any]


class GenesisSession(Row):
    """Snapshot of a Genesis session; ``backend rebuild genesis`` computes it again from ``domain_events``."""

    id: UUID
    novel_id: UUID | None = None
    user_id: str
    status: GenesisStatus = GenesisStatus.IN_PROGRESS
    current_stage: GenesisStage = GenesisStage.CONCEPT_SELECTION
    confirmed_data: Document | None = None
    #: The state of the current stage before its confirmation: preferences, request, proposal.
    draft: Document | None = None
    #: The writer's feedback in the current stage, oldest first.
    feedback: list[Document] = Field(default=[])
    #: Whether the content of the session's events was erased; then the session refuses all commands.
    erased: bool = False
    #: The last guided run.
    guided_run: Document | None = None
    version: int = 1
    created_at: AwareDatetime
    updated_at: AwareDatetime
