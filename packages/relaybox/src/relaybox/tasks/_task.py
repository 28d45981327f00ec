"""A claimed task, and the types of its worker."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = ("Fence", "OnProgress", "Progress", "Task", "Worker")


@dataclass(frozen=True, kw_only=True)
class Fence:
    """The fencing token of a claimed task (G43).

    A worker holds a row of ``async_tasks`` only ``WHERE id = task_id AND lease_token = lease_token AND
    status = 'RUNNING'``; an application's own statement that ends a task needs this condition too.
    """

    task_id: UUID
    lease_token: UUID


@dataclass(frozen=True, kw_only=True)
class Task:
    """A claimed row of ``async_tasks``, as it was when it was claimed."""

    id: UUID
    task_type: str
    #: The command that the task belongs to; None without a command.
    command_id: UUID | None
    #: The aggregate that the task works on; None without one.
    aggregate_id: UUID | None
    input_data: dict[str, Any] = field(repr=False)
    #: Percentage that an earlier attempt has reached.
    progress: Decimal
    #: How often the task was claimed, this time included; a release at a stop is not counted.
    attempts: int
    lease_token: UUID = field(repr=False)

    @property
    def fence(self) -> Fence:
        """The fencing token that each write for this task needs."""
        return Fence(task_id=self.id, lease_token=self.lease_token)


#: Reports the progress in percent (0 to 100). Raises TaskLost if the worker does not hold the task any more.
Progress = Callable[[float], Awaitable[None]]
#: Does the work, and ends the task in the transaction that writes the result.
Worker = Callable[[Task, Progress], Awaitable[None]]
#: Called with the percentage after it was recorded; must return at once.
OnProgress = Callable[[Task, Decimal], None]
