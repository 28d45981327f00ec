"""The loop that gives tasks to their workers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from enum import auto
from typing import Final
from uuid import UUID

import structlog
from structlog.contextvars import bound_contextvars

from relaybox.db import Database, DatabaseError
from relaybox.settings import TaskSettings
from relaybox.signals import OnSignal, Signal, SignalEmitter
from relaybox.tasks._attempt import Attempt, AttemptOutcome
from relaybox.tasks._statistics import RunnerStatistics
from relaybox.tasks._store import claim_tasks, release_task, renew_leases
from relaybox.tasks._task import OnProgress, Task, Worker

__all__ = ("TaskRunner", "TaskSignal")

_log: Final = structlog.stdlib.get_logger(__name__)
#: How long a cancelled worker may take to clean up before its task goes to a successor anyway.
_CANCEL_S: Final = 0.5
#: How long a stop waits for a claim on its way, and for the releases, when PostgreSQL does not answer.
_CLAIM_S: Final = 0.5
_RELEASE_S: Final = 1.0


class TaskSignal(Signal):
    """A step of a task runner."""

    CLAIMED = auto()
    IDLE = auto()
    RENEWED = auto()
    ENDED = auto()
    LOST = auto()
    POSTPONED = auto()
    RELEASED = auto()
    WAITING_FOR_DATABASE = auto()


class TaskRunner:
    """Claims tasks of the types it has workers for, runs them, and keeps their leases.

    Promises (G06, G43): a task runs with one runner at a time, as far as results count: what a
    worker writes after it lost the task is refused. A runner that dies is succeeded when its leases
    run out, one that is stopped at once. A task that was taken *attempts_max* times without an end
    goes to *on_exhausted*, which must end it. Invariant: at most *concurrency* tasks are held.
    """

    def __init__(
        self,
        database: Database,
        workers: Mapping[str, Worker],
        *,
        on_exhausted: Callable[[Task], Awaitable[None]],
        settings: TaskSettings | None = None,
        on_progress: OnProgress | None = None,
        on_signal: OnSignal[TaskSignal] | None = None,
    ) -> None:
        self._database = database
        self._workers = dict(workers)
        self._on_exhausted = on_exhausted
        self._settings = settings or TaskSettings()
        self._on_progress = on_progress
        self._signals = SignalEmitter(on_signal)
        self._held: dict[UUID, tuple[Task, asyncio.Task[None]]] = {}
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._fault: BaseException | None = None
        #: The last claim failed, and the log says so.
        self._claims_fail = False

    def __repr__(self) -> str:
        types = ", ".join(sorted(self._workers))
        return f"<TaskRunner {types} [{len(self._held)} of {self._settings.concurrency} running]>"

    def statistics(self) -> RunnerStatistics:
        """What was done since the start, and what is held now."""
        counts = self._signals.counts
        return RunnerStatistics(
            running=len(self._held),
            ended=counts[TaskSignal.ENDED],
            lost=counts[TaskSignal.LOST],
            postponed=counts[TaskSignal.POSTPONED],
            released=counts[TaskSignal.RELEASED],
        )

    def wake(self) -> None:
        """Look for tasks now; call it after the transaction that made one has committed.

        Only a hint: a task nobody told of is found within ``TASK_POLL_S``.
        """
        self._woken.set()

    def stop(self) -> None:
        """Take nothing new and let :meth:`run` return once running workers have had their time."""
        self._stopping.set()
        self._woken.set()

    async def run(self) -> None:
        """Work until :meth:`stop`; returns with no task held, within ``TASK_STOP_GRACE_S`` and a few seconds.

        PostgreSQL away, read-only, or refusing the runner's own statements is waited for, without end.
        """
        claiming = asyncio.create_task(self._claim_until_stopped(), name="task-claims")
        heartbeat = asyncio.create_task(self._keep_leases(), name="task-leases")
        loops = (claiming, heartbeat)
        for one in loops:
            one.add_done_callback(self._notice_fault)
        try:
            await self._stopping.wait()
            # A claim on its way is waited for: cancelled, its tasks would rest until the lease ran out.
            await asyncio.wait({claiming}, timeout=_CLAIM_S)
            await self._finish_running()
        finally:
            for one in loops:
                one.cancel()
            await asyncio.wait(loops, timeout=_CANCEL_S)
            await self._hand_over()
        if self._fault is not None:
            raise self._fault

    async def _claim_until_stopped(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            await self._take()
            await self._rest()

    async def _take(self) -> None:
        free = self._settings.concurrency - len(self._held)
        if free <= 0:
            return
        try:
            async with self._database.service_connection() as connection:
                tasks = await claim_tasks(
                    connection, list(self._workers), tasks_max=free, lease_s=self._settings.lease_s
                )
        except DatabaseError as error:
            if not self._claims_fail:
                self._claims_fail = True
                _log.warning(
                    "tasks cannot be claimed; trying again", error_code=error.error_code, reason=str(error)
                )
            self._signals.emit(TaskSignal.WAITING_FOR_DATABASE)
            return
        self._claims_fail = False
        for task in tasks:
            self._start(task)
        self._signals.emit(TaskSignal.CLAIMED if tasks else TaskSignal.IDLE)

    def _start(self, task: Task) -> None:
        attempt = Attempt(
            database=self._database,
            task=task,
            worker=self._workers[task.task_type],
            on_exhausted=self._on_exhausted,
            attempts_max=self._settings.attempts_max,
            on_progress=self._on_progress,
        )
        running = asyncio.create_task(self._work(task, attempt), name=f"task {task.id}")
        running.add_done_callback(self._notice_fault)
        self._held[task.id] = (task, running)

    async def _work(self, task: Task, attempt: Attempt) -> None:
        names = {"task_id": str(task.id), "task_type": task.task_type, "command_id": str(task.command_id)}
        with bound_contextvars(**names):
            outcome = await attempt.run()
        self._let_go(task, outcome)

    def _notice_fault(self, done: asyncio.Task[None]) -> None:
        """What escapes here is the runner's own fault, not a worker's: a lease kept by it would never end."""
        if not done.cancelled() and (error := done.exception()) is not None:
            self._fault = error
            self.stop()

    def _let_go(self, task: Task, outcome: AttemptOutcome) -> None:
        held = self._held.get(task.id)
        # A task that was lost may have come back to this very runner under a new token.
        if held is None or held[0].lease_token != task.lease_token:
            return
        del self._held[task.id]
        self._signals.emit(TaskSignal[outcome.name])
        self.wake()

    async def _rest(self) -> None:
        try:
            await asyncio.wait_for(self._woken.wait(), self._settings.poll_s)
        except TimeoutError:
            return

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_s / 4)
            if not self._held:
                continue
            asked = [task for task, _ in self._held.values()]
            try:
                async with self._database.service_connection() as connection:
                    fences = [task.fence for task in asked]
                    lost = await renew_leases(connection, fences, lease_s=self._settings.lease_s)
            except DatabaseError as error:
                # The work goes on: while PostgreSQL is away nobody else can take it, and the fence
                # decides about the result.
                _log.warning("leases cannot be renewed; trying again", error_code=error.error_code)
                continue
            self._drop([task for task in asked if task.id in lost])
            self._signals.emit(TaskSignal.RENEWED)

    def _drop(self, lost: list[Task]) -> None:
        for task in lost:
            held = self._held.get(task.id)
            if held is not None and held[0] is task:
                held[1].cancel()
                _log.info("task lost; its worker is cancelled", task_id=str(task.id))
                self._let_go(task, AttemptOutcome.LOST)

    async def _finish_running(self) -> None:
        running = [work for _, work in self._held.values()]
        if running:
            await asyncio.wait(running, timeout=self._settings.stop_grace_s)

    async def _hand_over(self) -> None:
        left = list(self._held.values())
        for _, work in left:
            work.cancel()
        if left:
            await asyncio.wait([work for _, work in left], timeout=_CANCEL_S)
            releases = [asyncio.create_task(self._release(task)) for task, _ in left]
            _, late = await asyncio.wait(releases, timeout=_RELEASE_S)
            for release in late:
                release.cancel()

    async def _release(self, task: Task) -> None:
        try:
            async with self._database.service_connection() as connection:
                released = await release_task(connection, task.fence)
        except DatabaseError as error:
            _log.warning(
                "task not released; it is taken over when its lease runs out",
                task_id=str(task.id),
                error_code=error.error_code,
            )
            released = False
        self._let_go(task, AttemptOutcome.RELEASED if released else AttemptOutcome.LOST)
