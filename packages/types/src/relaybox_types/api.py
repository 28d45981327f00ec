"""Define request and response bodies that all domains share: commands, tasks, stream tickets and errors."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from relaybox_types.enums import CommandStatus, TaskStatus
from relaybox_types.text import Word

__all__ = (
    "CommandAccepted",
    "CommandRequest",
    "CommandState",
    "ErrorBody",
    "ErrorDetail",
    "StreamTicket",
    "TaskState",
    "Version",
)

Version = Annotated[int, Field(ge=1, le=2_147_483_647)]
"""The version of an aggregate: the number of its events, so 1 after the first event."""


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class CommandRequest(_Request):
    """Body of a command; `command_type` determines the schema of `payload`."""

    command_type: Word
    payload: dict[str, JsonValue] = Field(default_factory=dict)
    #: The command is refused with 409 STALE_VERSION unless the aggregate has this version; null accepts any.
    expected_version: Annotated[Version, Field(strict=True)] | None = None


class CommandAccepted(_Response):
    """Response to a command: COMPLETED with 200, RECEIVED with 202."""

    command_id: UUID
    status: CommandStatus
    message: str


class CommandState(_Response):
    """The state of a command.

    `task_id` is the id of its latest task; null without a task. `error` is null unless the command is FAILED.
    """

    command_id: UUID
    command_type: str
    status: CommandStatus
    created_at: datetime
    task_id: UUID | None = None
    error: dict[str, JsonValue] | None = None


class TaskState(_Response):
    """The state of a task; `progress` is in percent.

    `result` is null unless the task is COMPLETED. `error` is the error of the last failed attempt, also while
    the task is RUNNING and waits for its next attempt; null without a failed attempt and once COMPLETED.
    """

    task_id: UUID
    task_type: str
    status: TaskStatus
    progress: Annotated[float, Field(ge=0, le=100)]
    created_at: datetime
    updated_at: datetime
    result: dict[str, JsonValue] | None = None
    error: dict[str, JsonValue] | None = None


class StreamTicket(_Response):
    """A single-use ticket that opens the event stream; browsers need it, as `EventSource` sends no token."""

    ticket: str
    expires_in_s: Annotated[int, Field(ge=1)]


class ErrorDetail(_Response):
    """One invalid field of a request, without its value."""

    #: The path of the field: `body.limit`, `payload.rating`.
    field: str
    message: str


class ErrorBody(BaseModel):
    """Body of every error. Some errors add fields, such as `duplicate_command_id`."""

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)

    error_code: str
    message: str
    request_id: str | None = None
    #: The invalid fields, at most 20; with VALIDATION_ERROR and STAGE_CONTENT_INVALID only.
    details: list[ErrorDetail] | None = None
