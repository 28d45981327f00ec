"""The inputs of a workspace's tasks, and the function that starts a task."""

from collections.abc import Mapping
from typing import Any, Final, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from relaybox.commands import Caller
from relaybox.db import load_queries
from relaybox.outbox import notify_on_commit
from relaybox.tasks import create_task
from relaybox_types.enums import CommandStatus
from sqlalchemy.ext.asyncio import AsyncSession

from backend.workspace.core import CommandTransaction

__all__ = (
    "EXPORT_COMMAND",
    "EXPORT_TASK",
    "IMPORT_TASK",
    "TASKS_SQL",
    "TASK_CREATED_KEY",
    "ExportInput",
    "ImportInput",
    "TaskRequester",
    "start_task",
)

TASKS_SQL: Final = load_queries(__package__ or "backend.workspace.pgn", "tasks.sql")
IMPORT_TASK: Final = "workspace.import-pgn"
EXPORT_TASK: Final = "workspace.export"
EXPORT_COMMAND: Final = "ExportNode"
TASK_CREATED_KEY: Final = "workspace.tasks"
"""The payload of the notification of a new task, on the channel that otherwise has keys of events."""


class _Input(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class TaskRequester(_Input):
    """The user who started a task, with the ids and the trace context of the request.

    This part of the input is kept when the task has ended; the rest, such as the file, is removed.
    """

    actor: str
    request_id: str | None = None
    correlation_id: UUID | None = None
    traceparent: str | None = None
    #: The share link of the request; None if there is none.
    link_id: UUID | None = None

    @classmethod
    def from_command(cls, tx: CommandTransaction) -> Self:
        """Return the sender of the command of *tx*."""
        return cls(
            actor=tx.caller.actor,
            request_id=tx.caller.request_id,
            correlation_id=tx.caller.correlation_id,
            traceparent=tx.caller.traceparent,
            link_id=tx.link_id,
        )

    def begin_command(self, db: AsyncSession, command_id: UUID, *, service: str) -> CommandTransaction:
        """Return the transaction in which *service* executes the recorded command for this user."""
        caller = Caller(source_service=service, **self.model_dump(exclude={"link_id"}))
        return CommandTransaction(db, caller, link_id=self.link_id, recorded_command_id=command_id)

    def stored_input(self) -> dict[str, Any]:
        """Return the input that the task keeps after its end."""
        return {"asker": self.model_dump(mode="json")}


class ImportInput(_Input):
    """The input of an import; the task's aggregate is the study or folder that the import creates."""

    #: The requester, named ``asker`` in stored inputs.
    asker: TaskRequester
    parent_id: UUID | None
    title: str
    strict: bool
    size_bytes: int
    sha256: str
    #: Estimated number of games, for the progress.
    games: int
    #: The file, as :func:`backend.workspace.pgn._parsed_file.encode_file` returns it.
    pgn: str


class ExportInput(_Input):
    """The input of an export; the task's aggregate is the exported node."""

    #: The requester, named ``asker`` in stored inputs.
    asker: TaskRequester


async def start_task(
    tx: CommandTransaction,
    task_type: str,
    *,
    command: tuple[str, UUID, Mapping[str, Any]],
    node_id: UUID,
    input_data: ImportInput | ExportInput,
    parent_id: UUID | None = None,
) -> UUID:
    """Record a command as RECEIVED, and create the task that executes the command; return the task's id.

    Args:
        tx: The command's transaction.
        task_type: The type of the task.
        command: Type, aggregate id and payload of the command. Only one command of a type may be pending for
            an aggregate.
        node_id: The aggregate of the task.
        input_data: The input of the task.
        parent_id: The parent of the nodes that the task will create; a purge of the parent cancels the task.
            The caller must have locked the parent. None without a parent.

    Raises:
        DuplicateCommand: A command of the type is pending for the aggregate.
    """
    await tx.record(*command, status=CommandStatus.RECEIVED)
    task_id = await create_task(
        tx.executor,
        task_type=task_type,
        command_id=tx.command_id,
        aggregate_id=node_id,
        input_data=input_data.model_dump(mode="json"),
        fairness_key=tx.caller.actor,
    )
    assert task_id is not None, "the command has just been received"
    if parent_id is not None:
        await tx.executor.fetch(TASKS_SQL["link_task_to_parent"], task_id, str(parent_id))
    notify_on_commit(tx.db, TASK_CREATED_KEY)
    return task_id
