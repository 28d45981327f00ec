"""Attach an engine of flows, such as Prefect or Temporal, to pauses.

A pause of such an engine has a task, the *driver*. The driver calls the engine after each transition of the
pause::

    pause_run: PENDING_PAUSE ── engine.suspend ──► confirm_paused: PAUSED, the driver waits
                                                     │ resume      ──► RESUMED ── engine.resume ──► end
                                                     └ expiry, cancel ► EXPIRED ── engine.cancel ──► end

The transaction that requests the pause creates the task, and the transaction that ends the pause wakes the
task. So no transition is missed. If the process that runs the driver is killed, the lease of the task ends,
and another process repeats the last call.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any, Final, Protocol
from uuid import UUID

import structlog
from pydantic_core import to_json
from relaybox_types.enums import HandleStatus
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.db import Database, executor_of, load_queries, map_database_errors
from relaybox.flows._errors import (
    FlowEngineUnavailable,
    FlowExpired,
    FlowInvalid,
    FlowRunError,
    FlowRunRunning,
)
from relaybox.flows._handles import (
    Handle,
    confirm_paused,
    expire_one,
    fetch_handle,
    lock_handle,
    pause,
)
from relaybox.flows._json import check_text
from relaybox.tasks import Progress, Task, Worker, complete_task, fail_task, suspend_task

__all__ = ("EngineRun", "FlowEngine", "engine_workers", "pause_run")

_SQL: Final = load_queries(__package__ or "relaybox.flows", "flows.sql")
_ENGINE_CHARACTERS_MAX: Final = 40
_RUN_CHARACTERS_MAX: Final = 200
#: Seconds until the driver calls an engine again: for a run that is not suspended yet, and after no response.
_RUNNING_S: Final = 1.0
_UNAVAILABLE_S: Final = 5.0
_log: Final = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineRun:
    """A run of an external engine, and one of its pauses."""

    #: :attr:`FlowEngine.name` of the engine, 1 to 40 characters.
    engine: str
    #: The engine's id of the run, 1 to 200 characters.
    run_id: str
    #: Correlation id of the pause; a run that pauses several times needs one for each pause.
    correlation_id: str


class FlowEngine(Protocol):
    """Interface of an engine whose runs are suspended, resumed and cancelled by pauses.

    The driver is the task of a pause. For each transition of the pause, the driver calls the method of the
    transition at least once: after a crash the driver repeats its call. In the meantime the run may have
    continued, paused again or ended. A repeated call must change nothing.

    Each method raises :class:`FlowEngineUnavailable` if the engine does not respond; the driver then repeats
    the call every 5 s, without limit. The method raises a :class:`FlowRunError` if a repeated call cannot
    succeed; the driver is then FAILED. After any other error the driver tries again, up to
    ``TASK_ATTEMPTS_MAX`` attempts in total.
    """

    @property
    def name(self) -> str:
        """Name of the engine, as in :attr:`EngineRun.engine`."""
        ...

    async def suspend(self, run: EngineRun) -> None:
        """Return if *run* is suspended for this pause, so that no process executes the run.

        Return at once if runs of the engine wait for a signal by themselves and need no suspension.

        Raises:
            FlowRunRunning: The run has not suspended itself yet; the driver repeats the call every second.
        """
        ...

    async def resume(self, run: EngineRun, payload: Mapping[str, Any]) -> None:
        """Resume *run* with *payload*; do nothing if this pause of the run was resumed before."""
        ...

    async def cancel(self, run: EngineRun, *, reason: str) -> None:
        """End *run*, because its pause expired or was cancelled; do nothing if the run has ended."""
        ...


async def pause_run(
    db: AsyncSession, run: EngineRun, *, expires_in: timedelta, chain_id: UUID | None = None
) -> Handle:
    """Request the pause of a run in the caller's transaction; a repeated call for the pause changes nothing.

    Args:
        db: Session of the caller's transaction.
        run: The run, and the correlation id of its pause.
        expires_in: The pause ends by itself after this time, and its run is cancelled.
        chain_id: Chain to which the pause's events belong; None: see :func:`chain_of`.

    Returns:
        The handle. If its status is RESUMED, a resume had arrived before, and the run need not be suspended.
        If a repeated call returns an EXPIRED handle, the pause has expired or was cancelled.

    Raises:
        FlowInvalid: The name of the engine or the id of the run is too long, or empty, or cannot be stored;
            *expires_in* is longer than 100 years.
        FlowAlreadyPaused, RetryTransaction: Another transaction requests this pause: repeat the whole
            transaction.
        FlowDocumentInvalid: The correlation id is too long or cannot be stored.
        ValueError: *expires_in* is not positive.
    """
    check_text("the name of an engine", run.engine, _ENGINE_CHARACTERS_MAX)
    check_text("the id of a run", run.run_id, _RUN_CHARACTERS_MAX)
    handle = await fetch_handle(executor_of(db), run.correlation_id)
    if handle is not None and handle.registered:
        return handle
    with map_database_errors():
        document = to_json(asdict(run)).decode()
        [row] = await executor_of(db).fetch(_SQL["start"], _task_type(run.engine), document, None)
    handle = await pause(
        db,
        run.correlation_id,
        resume_handle={"task_id": str(row["id"]), "engine": run.engine, "run_id": run.run_id},
        expires_in=expires_in,
        chain_id=chain_id,
    )
    return await confirm_paused(db, run.correlation_id) if handle.resume_is_kept else handle


def engine_workers(database: Database, engines: Iterable[FlowEngine]) -> dict[str, Worker]:
    """Return the workers that call *engines*, by task type, for a :class:`~relaybox.tasks.TaskRunner`.

    Args:
        database: Where the pauses are stored.
        engines: The engines.

    Raises:
        FlowInvalid: Two engines have the same name.
    """
    by_type = dict[str, FlowEngine]()
    for one in engines:
        if by_type.setdefault(_task_type(one.name), one) is not one:
            raise FlowInvalid(f"two engines have the name {one.name!r}; rename one of them")

    def worker(engine: FlowEngine) -> Worker:
        async def work(task: Task, _progress: Progress) -> None:
            await _Driver(database, engine, task).run()

        return work

    return {task_type: worker(engine) for task_type, engine in by_type.items()}


def _task_type(engine: str) -> str:
    return f"Relaybox.FlowEngine/{engine}"


class _Driver:
    """One attempt at the driver's task: call the engine, as the present state of the pause requires."""

    def __init__(self, database: Database, engine: FlowEngine, task: Task) -> None:
        self._database = database
        self._engine = engine
        self._task = task
        self._run = EngineRun(**task.input_data)

    async def run(self) -> None:
        try:
            await self._call_engine()
        except FlowRunRunning:
            await self._database.run_in_transaction(lambda db: self._wait(db, _RUNNING_S))
        except FlowEngineUnavailable as error:
            _log.warning(
                "flow engine unavailable; the call is repeated",
                engine=self._run.engine,
                run_id=self._run.run_id,
                pause_s=_UNAVAILABLE_S,
                error=str(error),
            )
            await self._database.run_in_transaction(lambda db: self._wait(db, _UNAVAILABLE_S))
        except FlowRunError as error:
            failure = {"error_code": error.error_code, "message": str(error)}
            await self._database.run_in_transaction(
                lambda db: fail_task(executor_of(db), self._task.fence, error=failure)
            )

    async def _call_engine(self) -> None:
        handle = await self._database.run_in_transaction(lambda db: self._look(db, suspended=False))
        if handle is not None and handle.status is HandleStatus.PENDING_PAUSE:
            await self._engine.suspend(self._run)
            handle = await self._database.run_in_transaction(lambda db: self._look(db, suspended=True))
        if handle is None:
            return
        if handle.status is HandleStatus.RESUMED:
            await self._engine.resume(self._run, handle.resume_payload or {})
        else:
            reason = "cancelled" if handle.cancelled else "expired"
            await self._engine.cancel(self._run, reason=f"the pause {handle.correlation_id} {reason}")
        await self._database.run_in_transaction(self._complete)

    async def _look(self, db: AsyncSession, *, suspended: bool) -> Handle | None:
        """Return the handle if the engine must be called; else complete or suspend the task and return None.

        Args:
            db: Session of a transaction.
            suspended: Whether the engine has suspended the run, so that a requested pause is confirmed here.
        """
        await lock_handle(db, self._run.correlation_id)
        handle = await fetch_handle(executor_of(db), self._run.correlation_id)
        if handle is None:  # removed by retention
            return await self._complete(db)
        if handle.status is HandleStatus.PENDING_PAUSE and suspended:
            handle = await self._confirm(db, handle)
        if handle.status is HandleStatus.EXPIRED:
            await expire_one(db, self._run.correlation_id)
        if handle.status is HandleStatus.PAUSED:
            await suspend_task(executor_of(db), self._task.fence, not_before=handle.expires_at)
            return None
        return handle

    async def _confirm(self, db: AsyncSession, handle: Handle) -> Handle:
        """Confirm the pause; return its handle, EXPIRED if its time was over after *handle* was read."""
        try:
            return await confirm_paused(db, handle.correlation_id)
        except FlowExpired:
            return replace(handle, status=HandleStatus.EXPIRED)

    async def _wait(self, db: AsyncSession, wait_s: float) -> None:
        """Let the task be claimed again after *wait_s* seconds, without counting the attempt."""
        [row] = await executor_of(db).fetch(_SQL["time_after"], wait_s)
        await suspend_task(executor_of(db), self._task.fence, not_before=row["time"])

    async def _complete(self, db: AsyncSession) -> None:
        await complete_task(executor_of(db), self._task.fence, result={})
