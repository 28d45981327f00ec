"""Genesis over HTTP: what the API under `/api/v1/genesis/sessions` takes and returns."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, JsonValue
from relaybox_types.api import Version

from shared_types.genesis import GenesisStage, GenesisStatus

__all__ = [
    "CreateSessionRequest",
    "SessionList",
    "SessionState",
    "SessionSummary",
]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class CreateSessionRequest(_Request):
    """Body of `POST /`; `novel_id` ties the session to a novel that exists elsewhere."""

    novel_id: UUID | None = None


class SessionSummary(_Response):
    """One line in the list of a writer's sessions."""

    session_id: UUID
    novel_id: UUID | None
    status: GenesisStatus
    current_stage: GenesisStage
    version: Version
    created_at: datetime
    updated_at: datetime


class SessionList(_Response):
    """One page of sessions; `next_cursor` is null on the last page."""

    items: list[SessionSummary]
    next_cursor: str | None = None


class SessionState(_Response):
    """Where a session stands.

    `pending_command_type` is null unless `is_pending`. `confirmed_data` maps each confirmed stage to its
    content and is null before the first. `last_result` is what the last request of the current stage led
    to, `{"command_id", "status": "COMPLETED", "proposal"}` or `{"command_id", "status": "FAILED", "error"}`;
    null before the first.
    """

    session_id: UUID
    status: GenesisStatus
    current_stage: GenesisStage
    is_pending: bool
    pending_command_type: str | None
    confirmed_data: dict[str, JsonValue] | None
    last_result: dict[str, JsonValue] | None
    version: Version
