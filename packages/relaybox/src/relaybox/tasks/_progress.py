"""Record the progress of tasks: only higher values, and with a bounded number of writes."""

from decimal import ROUND_DOWN, Decimal
from time import monotonic
from typing import Final

import structlog

from relaybox.db import Database, DatabaseError
from relaybox.tasks._store import report_progress
from relaybox.tasks._task import OnProgress, Task

__all__ = ("ProgressReport", "should_record_progress")

_log: Final = structlog.stdlib.get_logger(__name__)
_STEP_PERCENT: Final = Decimal(5)
_PAUSE_S: Final = 0.25
_CENT: Final = Decimal("0.01")


def should_record_progress(last: Decimal, percent: Decimal, elapsed_s: float) -> bool:
    """Return whether to record *percent*, *elapsed_s* seconds after *last* was recorded.

    A value must be higher than *last*, and either be higher by 5 or come at least 0.25 s later. So a worker
    that reports each token of a language model's response causes at most 20 writes plus 4 per second, and
    milestones that are 5 percentage points apart are always recorded.
    """
    forward = percent - last
    return forward > 0 and (forward >= _STEP_PERCENT or elapsed_s >= _PAUSE_S)


class ProgressReport:
    """The function that a worker calls to report the progress of its task."""

    def __init__(self, database: Database, task: Task, on_progress: OnProgress | None) -> None:
        self._database = database
        self._task = task
        self._on_progress = on_progress
        self._last = task.progress
        self._written_at_s = float("-inf")

    async def __call__(self, percent: float) -> None:
        """Record *percent* (0 to 100) in its own transaction, if :func:`should_record_progress` allows it.

        A database error is logged and not raised, because a lost report is no reason to end the work. When
        the worker ends the task, the fencing token decides whether the result is accepted.

        Raises:
            ValueError: *percent* is not between 0 and 100.
            TaskLost: The task was cancelled or taken over; the worker must stop.
        """
        if not 0 <= percent <= 100:
            raise ValueError(
                f"progress of task {self._task.id} is {percent}; report a percentage from 0 to 100"
            )
        exact = Decimal(str(percent)).quantize(_CENT, rounding=ROUND_DOWN)
        if not should_record_progress(self._last, exact, monotonic() - self._written_at_s):
            return
        try:
            async with self._database.service_connection() as connection:
                self._last = await report_progress(connection, self._task.fence, exact)
        except DatabaseError as error:
            _log.warning("progress not recorded", task_id=str(self._task.id), error_code=error.error_code)
            return
        self._written_at_s = monotonic()
        if self._on_progress is not None:
            self._on_progress(self._task, self._last)
