"""Work of a workspace that outlives its request: how it begins, and who asked for it."""

from collections.abc import Mapping
from typing import Any, Final, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from relaybox.commands import Caller
from relaybox.db import load_queries
from relaybox.outbox import note_for_commit
from relaybox.tasks import create_task
from relaybox_types.enums import CommandStatus
from sqlalchemy.ext.asyncio import AsyncSession

from backend.workspace.core import Work

__all__ = (
    "EXPORT_COMMAND",
    "EXPORT_TASK",
    "IMPORT_TASK",
    "TASKS",
    "TASK_NEWS",
    "Asker",
    "ExportInput",
    "ImportInput",
    "begin_task",
)

TASKS: Final = load_queries(__package__ or "backend.workspace.pgn", "tasks.sql")
IMPORT_TASK: Final = "workspace.import-pgn"
EXPORT_TASK: Final = "workspace.export"
EXPORT_COMMAND: Final = "ExportNode"
TASK_NEWS: Final = "workspace.tasks"
"""What is told when a task was made, where otherwise keys of events are."""


class _Input(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class Asker(_Input):
    """Who asked for a task, and in which chain; all that stays of its input when it has ended."""

    actor: str
    request_id: str | None = None
    correlation_id: UUID | None = None
    traceparent: str | None = None
    #: The link that the request came with.
    link_id: UUID | None = None

    @classmethod
    def of(cls, work: Work) -> Self:
        """Who sends this command."""
        return cls(
            actor=work.caller.actor,
            request_id=work.caller.request_id,
            correlation_id=work.caller.correlation_id,
            traceparent=work.caller.traceparent,
            link_id=work.link_id,
        )

    def work(self, db: AsyncSession, command_id: UUID, *, service: str) -> Work:
        """The same command, when *service* carries it out in the transaction of *db*."""
        caller = Caller(source_service=service, **self.model_dump(exclude={"link_id"}))
        return Work(db, caller, link_id=self.link_id, taken=command_id)

    def kept(self) -> dict[str, Any]:
        """What stays in the task."""
        return {"asker": self.model_dump(mode="json")}


class ImportInput(_Input):
    """A file that waits to be imported; the task's aggregate is the node that it becomes."""

    asker: Asker
    parent_id: UUID | None
    title: str
    strict: bool
    size_bytes: int
    sha256: str
    #: About how many, for the progress.
    games: int
    #: See :func:`backend.workspace.pgn._files.packed`.
    pgn: str


class ExportInput(_Input):
    """A node, the task's aggregate, that waits to be exported."""

    asker: Asker


async def begin_task(
    work: Work,
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
    await work.record(*command, status=CommandStatus.RECEIVED)
    task_id = await create_task(
        work.executor,
        task_type=task_type,
        command_id=work.command_id,
        aggregate_id=node_id,
        input_data=input_data.model_dump(mode="json"),
        fairness_key=work.caller.actor,
    )
    assert task_id is not None, "the command has just been received"
    if parent_id is not None:
        await work.executor.fetch(TASKS["place_below"], task_id, str(parent_id))
    note_for_commit(work.db, TASK_NEWS)
    return task_id
