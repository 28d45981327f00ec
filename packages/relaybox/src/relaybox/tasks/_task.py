"""A task in the hands of a worker."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = ("Fence", "OnProgress", "Progress", "Task", "Worker")


@dataclass(frozen=True, kw_only=True)
class Fence:
    """What a write must carry to be taken from this worker and from no other (G43).

    A row of ``async_tasks`` belongs to the worker only ``WHERE id = task_id AND lease_token =
    lease_token AND status = 'RUNNING'``; a statement of one's own that ends a task must say so too.
    """

    task_id: UUID
    lease_token: UUID


@dataclass(frozen=True, kw_only=True)
class Task:
    """A claimed row of ``async_tasks``, as it was when it was claimed."""

    id: UUID
    task_type: str
    #: The command that asked for it; null for a task that no command asked for.
    command_id: UUID | None
    #: The aggregate it works for; null when it works for none.
    aggregate_id: UUID | None
    input_data: dict[str, Any] = field(repr=False)
    #: Percent that an earlier worker had reached.
    progress: Decimal
    #: How often it was taken, this time included; a graceful release takes its own back.
    attempts: int
    lease_token: UUID = field(repr=False)

    @property
    def fence(self) -> Fence:
        """What a write for this task must carry."""
        return Fence(task_id=self.id, lease_token=self.lease_token)


#: Reports percent done (0 to 100). Raises TaskLost when the task is no longer the worker's.
Progress = Callable[[float], Awaitable[None]]
#: Does the work and ends the task itself, in the transaction that holds the result.
Worker = Callable[[Task, Progress], Awaitable[None]]
#: Hears of progress after it is recorded, percent; must return at once.
OnProgress = Callable[[Task, Decimal], None]
