"""Work of a workspace that outlives its request: how it begins, and who asked for it."""

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
"""What is told when a task was made, where otherwise keys of events are."""


class _Input(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class TaskRequester(_Input):
    """Who asked for a task, and in which chain; all that stays of its input when it has ended."""

    actor: str
    request_id: str | None = None
    correlation_id: UUID | None = None
    traceparent: str | None = None
    #: The link that the request came with.
    link_id: UUID | None = None

    @classmethod
    def from_command(cls, tx: CommandTransaction) -> Self:
        """Who sends this command."""
        return cls(
            actor=tx.caller.actor,
            request_id=tx.caller.request_id,
            correlation_id=tx.caller.correlation_id,
            traceparent=tx.caller.traceparent,
            link_id=tx.link_id,
        )

    def begin_command(self, db: AsyncSession, command_id: UUID, *, service: str) -> CommandTransaction:
        """The same command, when *service* carries it out in the transaction of *db*."""
        caller = Caller(source_service=service, **self.model_dump(exclude={"link_id"}))
        return CommandTransaction(db, caller, link_id=self.link_id, recorded_command_id=command_id)

    def kept(self) -> dict[str, Any]:
        """What stays in the task."""
        return {"asker": self.model_dump(mode="json")}


class ImportInput(_Input):
    """A file that waits to be imported; the task's aggregate is the node that it becomes."""

    asker: TaskRequester
    parent_id: UUID | None
    title: str
    strict: bool
    size_bytes: int
    sha256: str
    #: About how many, for the progress.
    games: int
    #: See :func:`backend.workspace.pgn._parsed_file.packed`.
    pgn: str


class ExportInput(_Input):
    """A node, the task's aggregate, that waits to be exported."""

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
    """Take a command that a worker will carry out, and make its task; the task's id.

    *command*: its type, what it is about, and its payload. At most one of a type is pending for a thing. A
    purge of *parent_id*, which is held, ends the task as long as it has made nothing.

    Raises:
        DuplicateCommand: there is one.
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
