"""Run one attempt at a task, and postpone the task when the worker fails."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Final, TypeVar

import structlog

from relaybox.db import Database, DatabaseError
from relaybox.errors import RelayboxError
from relaybox.tasks._errors import TaskLost, TaskUnfinished, WorkerAborted
from relaybox.tasks._progress import ProgressReport
from relaybox.tasks._store import postpone_task
from relaybox.tasks._task import OnProgress, Task, Worker
from relaybox.telemetry import traceback_of

__all__ = ("Attempt", "AttemptOutcome", "await_worker", "retry_pause_s")

_log: Final = structlog.stdlib.get_logger(__name__)
_PAUSE_S_MAX: Final = 30.0
Result = TypeVar("Result")


class AttemptOutcome(StrEnum):
    """Why a runner does not hold a task any more."""

    ENDED = auto()  # the worker completed or failed the task
    LOST = auto()  # the task was cancelled or taken over, or PostgreSQL failed to postpone or release it
    POSTPONED = auto()  # the attempt failed; the task is claimed again after a pause
    RELEASED = auto()  # the runner stopped; another runner may claim the task at once


def retry_pause_s(attempts: int) -> float:
    """Return the pause in seconds after the *attempts*-th failed attempt: 1, 2, 4, … at most 30."""
    return min(2.0 ** (attempts - 1), _PAUSE_S_MAX)


async def await_worker(call: Awaitable[Result], is_cancelled: Callable[[], bool]) -> Result:
    """Await a function of the application, and turn exceptions that would end the runner into errors.

    Args:
        call: The awaitable that the call of the function has returned.
        is_cancelled: Returns whether the caller has cancelled the function.

    Raises:
        Exception: An error that the function raised, unchanged.
        CancelledError: The caller has cancelled the function.
        WorkerAborted: The function raised SystemExit, KeyboardInterrupt or CancelledError, or cancelled the
            asyncio task in which it runs.
    """
    task = asyncio.current_task()
    assert task is not None
    try:
        result = await call
        if task.cancelling():  # a cancellation by the function itself arrives here, not at the next statement
            await asyncio.sleep(0)
    except Exception:
        raise
    except BaseException as error:
        if is_cancelled() and isinstance(error, asyncio.CancelledError):
            raise
        raise WorkerAborted(error) from error
    return result


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt at a claimed task."""

    database: Database
    task: Task
    worker: Worker
    #: Called instead of the worker after ``attempts_max`` attempts; must end the task.
    on_exhausted: Callable[[Task], Awaitable[None]]
    attempts_max: int
    #: Called after progress was recorded; None for no call.
    on_progress: OnProgress | None
    #: Returns whether the runner has cancelled the attempt.
    is_cancelled: Callable[[], bool]

    async def run(self) -> AttemptOutcome:
        """Call the worker, or ``on_exhausted`` after the last attempt; postpone a task that has not ended."""
        try:
            if self.task.attempts > self.attempts_max:
                await await_worker(self.on_exhausted(self.task), self.is_cancelled)
            else:
                progress = ProgressReport(self.database, self.task, self.on_progress)
                call = self.worker(self.task, progress)
                if (outcome := await await_worker(call, self.is_cancelled)) is not None:
                    return outcome
            failure: Exception = TaskUnfinished(
                f"the worker of {self.task.task_type} did not end its task; "
                "call complete_task or fail_task in the transaction that writes the result"
            )
        except TaskLost:
            _log.info("task lost; late result rejected")
            return AttemptOutcome.LOST
        except Exception as error:  # noqa: BLE001 - a worker may raise anything; the task must be retried
            failure = error
        return await self._postpone(failure)

    async def _postpone(self, failure: Exception) -> AttemptOutcome:
        """Postpone the task after *failure*, so that a later attempt follows.

        If the runner does not hold the task any more, nothing is changed. The outcome is then ENDED for
        TaskUnfinished, because a worker that returned has ended the task itself, and LOST for other failures.
        If PostgreSQL fails, the outcome is LOST: a runner claims the task again when its lease ends.
        """
        pause_s = retry_pause_s(self.task.attempts)
        try:
            async with self.database.service_connection() as connection:
                still_open = await postpone_task(
                    connection, self.task.fence, pause_s=pause_s, error=_describe(failure)
                )
        except DatabaseError as error:
            _log.warning(
                "task not postponed; another runner can claim it when its lease ends",
                error_code=error.error_code,
            )
            return AttemptOutcome.LOST
        if not still_open:
            return AttemptOutcome.ENDED if isinstance(failure, TaskUnfinished) else AttemptOutcome.LOST
        _log.error(
            "task attempt failed; a runner claims the task again after pause_s",
            attempts=self.task.attempts,
            attempts_max=self.attempts_max,
            pause_s=pause_s,
            traceback=traceback_of(failure),
        )
        return AttemptOutcome.POSTPONED


def _describe(failure: Exception) -> dict[str, str]:
    """Return the code and message of *failure* to store in ``error_data``.

    If the error is not Relaybox's, the message is replaced, because it may contain private input.
    """
    if isinstance(failure, RelayboxError):
        return {"error_code": failure.error_code, "message": str(failure)}
    return {"error_code": "TASK_ATTEMPT_FAILED", "message": f"the worker raised {type(failure).__name__}"}
