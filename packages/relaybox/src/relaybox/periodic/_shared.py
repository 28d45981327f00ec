"""Run a periodic job in one process of the installation at a time, and record how each run ended."""

import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from pydantic_core import to_json

from relaybox.db import Database, DatabaseError, load_queries
from relaybox.errors import RelayboxError
from relaybox.periodic._job import PeriodicJob

__all__ = ("SharedJob", "run_if_due")

_log: Final = structlog.stdlib.get_logger(__name__)
_SQL: Final = load_queries(__package__ or "relaybox.periodic", "periodic.sql")
#: Shortest pause before a process checks again whether a run is due.
_PAUSE_S_MIN: Final = 0.02


async def run_if_due(
    database: Database, name: str, interval_s: float, action: Callable[[], Awaitable[object]]
) -> float:
    """Run *action* unless a process of the installation has begun it less than *interval_s* ago.

    The row *name* of ``work_schedules`` records the start, the end and the outcome of the run. If *action*
    raises an error, the error is recorded and then raised. If the process is killed during a run, the next
    run begins *interval_s* seconds after the start of that run.

    Args:
        database: The database of the installation.
        name: Name of the job; each process that has the job uses the same name.
        interval_s: Seconds from the start of one run to the start of the next.
        action: What to run. If a run takes longer than *interval_s*, another process may begin the next run
            meanwhile.

    Returns:
        Seconds until the next run is due, at most *interval_s*.

    Raises:
        DatabaseError: The start cannot be recorded; the action was not run.
        Exception: The error of *action*.
    """
    async with database.service_connection() as connection:
        [row] = await connection.fetch(_SQL["claim_run"], name, interval_s)
    if row["claimed"]:
        began_s = time.monotonic()
        try:
            await action()
        except Exception as error:
            await _record(database, name, began_s, error)
            raise
        await _record(database, name, began_s, None)
    return max(row["due_in_s"], _PAUSE_S_MIN)


async def _record(database: Database, name: str, began_s: float, error: Exception | None) -> None:
    """Record the end of a run; a database error is only logged, because the run itself has ended anyway."""
    outcome = "COMPLETED" if error is None else "FAILED"
    document = None if error is None else to_json(_describe(error)).decode()
    try:
        async with database.service_connection() as connection:
            await connection.fetch(_SQL["record_run"], name, outcome, document, time.monotonic() - began_s)
    except DatabaseError as failure:
        _log.warning(
            "end of a job's run not recorded; `relaybox schedule list` shows the outcome of the previous run",
            job=name,
            outcome=outcome,
            error_code=failure.error_code,
        )


def _describe(error: Exception) -> dict[str, str]:
    """Return the error to store: code and message, but only the class if the error is not Relaybox's.

    The messages of other errors may contain private data.
    """
    if isinstance(error, RelayboxError):
        return {"error_code": error.error_code, "message": str(error)}
    return {"error_code": "JOB_FAILED", "message": f"the job raised {type(error).__name__}; see the log"}


class SharedJob(PeriodicJob):
    """Run an action every *interval_s* seconds in one of the processes that have the job.

    Each process reads the time of the next run from the database and waits until then. The process that
    claims the run first runs the action and records the result (:func:`run_if_due`). If that process ends or
    is killed, the other processes continue the job. An error never ends the job.
    """

    def __init__(
        self,
        action: Callable[[], Awaitable[object]],
        *,
        name: str,
        interval_s: float,
        database: Database,
        observe: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Create the job without starting it.

        Args:
            action: What one process runs.
            name: Name of the job in ``work_schedules`` and in the log.
            interval_s: Seconds from the start of one run to the start of the next.
            database: The database of the installation.
            observe: What each process runs, at its start and each time a run is due, after the process has
                run *action* or left the run to another process; for example a measurement for its own
                metrics. None: nothing.
        """
        super().__init__(self._run_if_due, name=name, interval_s=interval_s)
        self._shared_action = action
        self._database = database
        self._observe = observe
        self._due_in_s = interval_s

    async def _run_if_due(self) -> None:
        self._due_in_s = self._interval_s
        try:
            self._due_in_s = await run_if_due(
                self._database, self._name, self._interval_s, self._shared_action
            )
        finally:
            if self._observe is not None:
                await self._observe()

    def _pause_s(self) -> float:
        return self._due_in_s
