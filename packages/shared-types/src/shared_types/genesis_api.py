"""Define request and response bodies of the API under `/api/v1/genesis/sessions`."""

from datetime import datetime
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, JsonValue
from relaybox_types.api import Version

from shared_types.genesis import GenesisStage, GenesisStatus, GuidedRunStatus

__all__ = [
    "CreateSessionRequest",
    "GuidedRunState",
    "SessionList",
    "SessionState",
    "SessionSummary",
]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class CreateSessionRequest(_Request):
    """Body of the request to create a session; `novel_id` is the id of the novel in another system."""

    novel_id: UUID | None = None


class SessionSummary(_Response):
    """One session in the list of a writer's sessions."""

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


class GuidedRunState(_Response):
    """A guided run; `expires_at` is null until the run has begun."""

    run_id: UUID
    status: GuidedRunStatus
    expires_at: AwareDatetime | None


class SessionState(_Response):
    """The state of a session.

    `pending_command_type` is null if `is_pending` is false. `confirmed_data` maps each confirmed stage to its
    content; null before the first confirmation. `last_result` is the result of the last request of the
    current stage, `{"command_id", "status": "COMPLETED", "proposal"}` or `{"command_id", "status": "FAILED",
    "error"}`; null before the first result. `guided_run` is the last guided run; null if there was none.
    """

    session_id: UUID
    status: GenesisStatus
    current_stage: GenesisStage
    is_pending: bool
    pending_command_type: str | None
    confirmed_data: dict[str, JsonValue] | None
    last_result: dict[str, JsonValue] | None
    version: Version
    guided_run: GuidedRunState | None = None
