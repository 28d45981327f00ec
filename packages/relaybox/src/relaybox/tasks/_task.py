"""Define a claimed task, and the types of worker functions."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from relaybox.tasks._attempt import AttemptOutcome

__all__ = ("Fence", "OnProgress", "Progress", "Task", "Worker")


@dataclass(frozen=True, kw_only=True)
class Fence:
    """The fencing token of a claimed task (G43).

    A worker holds its task as long as a row of ``async_tasks`` has this id, this ``lease_token`` and the
    status RUNNING. An application's own statement that ends a task needs these three conditions too.
    """

    task_id: UUID
    lease_token: UUID


@dataclass(frozen=True, kw_only=True)
class Task:
    """A claimed row of ``async_tasks``, as it was when it was claimed."""

    id: UUID
    task_type: str
    #: Id of the command that the task belongs to; None for a task without a command.
    command_id: UUID | None
    #: Id of the aggregate that the task works on; None for a task without an aggregate.
    aggregate_id: UUID | None
    input_data: dict[str, Any] = field(repr=False)
    #: Percentage that earlier attempts have reached, 0 to 100.
    progress: Decimal
    #: Number of claims of the task, including this one. Claims that ended by a release, and those before the
    #: task was last suspended, are not counted.
    attempts: int
    lease_token: UUID = field(repr=False)

    @property
    def fence(self) -> Fence:
        """The fencing token that each write for this task needs."""
        return Fence(task_id=self.id, lease_token=self.lease_token)


#: Function that reports the progress in percent (0 to 100); raises TaskLost if the task was lost.
Progress = Callable[[float], Awaitable[None]]
#: Function that does the work, and ends the task in the transaction that writes the result. If it returns the
#: outcome, the runner does not ask PostgreSQL whether the task has ended.
Worker = Callable[[Task, Progress], Awaitable["AttemptOutcome | None"]]
#: Function that is called with the task and the percentage after the percentage was recorded; must not block.
OnProgress = Callable[[Task, Decimal], None]
