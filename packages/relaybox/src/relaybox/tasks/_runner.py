"""Claim tasks, run their workers, and renew their leases."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from enum import auto
from time import monotonic
from typing import Final
from uuid import UUID

import structlog
from structlog.contextvars import bound_contextvars

from relaybox.db import Database, DatabaseError
from relaybox.outbox import Listener
from relaybox.periodic import PeriodicJob
from relaybox.settings import TaskSettings
from relaybox.signals import OnSignal, Signal, SignalEmitter
from relaybox.tasks._announcement import key_of
from relaybox.tasks._attempt import Attempt, AttemptOutcome
from relaybox.tasks._statistics import AttemptDurations, RunnerStatistics, TaskBacklog
from relaybox.tasks._store import claim_tasks, measure_backlog, release_task, renew_leases
from relaybox.tasks._task import OnProgress, Task, Worker

__all__ = ("TaskRunner", "TaskSignal")

_log: Final = structlog.stdlib.get_logger(__name__)
#: Seconds that a cancelled worker has to clean up before its task is released anyway.
_CANCEL_S: Final = 0.5
#: Seconds that a stop waits for a running claim, and for releases, if the database does not respond.
_CLAIM_S: Final = 0.5
_RELEASE_S: Final = 1.0
#: How often the runner measures the backlog, for metrics.
_BACKLOG_S: Final = 10.0


class TaskSignal(Signal):
    """A step that a task runner announces, for tests and statistics."""

    CLAIMED = auto()  # at least one task
    IDLE = auto()  # no task could be claimed
    RENEWED = auto()  # the leases of the held tasks
    ENDED = auto()
    LOST = auto()
    POSTPONED = auto()
    RELEASED = auto()
    WAITING_FOR_DATABASE = auto()


class TaskRunner:
    """Claim tasks of the types that have a worker, run them, and renew their leases.

    Guarantees (G06, G43): only one runner can write results of a task, because the writes of a worker that
    has lost its task are rejected. The tasks of a killed runner are claimed by another runner when their
    leases expire, the tasks of a stopped runner at once. Invariant: a runner holds at most
    ``TASK_CONCURRENCY`` tasks.

    Args:
        database: Where tasks are stored.
        workers: Worker functions by task type; tasks of other types are not claimed.
        on_exhausted: Called instead of the worker with a task that has been claimed over
            ``TASK_ATTEMPTS_MAX`` times; must end the task.
        settings: None reads ``TASK_*`` from the environment.
        listens: Whether the runner keeps a connection on which it learns of tasks that other processes have
            announced (:func:`relaybox.tasks.announce_tasks`), so that they start at once. Otherwise the
            runner finds them within ``TASK_POLL_S``.
        on_progress: Called after progress of a task was recorded.
        on_signal: Called with each step, for tests.
    """

    def __init__(
        self,
        database: Database,
        workers: Mapping[str, Worker],
        *,
        on_exhausted: Callable[[Task], Awaitable[None]],
        settings: TaskSettings | None = None,
        listens: bool = False,
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
        #: Whether the stop has cancelled the workers that still run.
        self._is_releasing = False
        #: Whether there may be tasks that the last claim left because the runner had no place for them.
        self._left_some = False
        self._listener = Listener(database, self._on_keys) if listens else None
        self._keys = frozenset(map(key_of, workers))
        #: First error in the runner's own code, which run() raises at its end.
        self._fault: BaseException | None = None
        #: Whether the last claim failed; of failures in a row only the first is logged.
        self._claims_fail = False
        self._backlog = TaskBacklog()
        self._durations = AttemptDurations()
        self._measuring = PeriodicJob(self._measure, name="measure tasks", interval_s=_BACKLOG_S)

    def __repr__(self) -> str:
        types = ", ".join(sorted(self._workers))
        return f"<TaskRunner {types} [{len(self._held)} of {self._settings.concurrency} running]>"

    def statistics(self) -> RunnerStatistics:
        """Return numbers of tasks since the start, and the number of tasks that run now."""
        counts = self._signals.counts
        return RunnerStatistics(
            running=len(self._held),
            ended=counts[TaskSignal.ENDED],
            lost=counts[TaskSignal.LOST],
            postponed=counts[TaskSignal.POSTPONED],
            released=counts[TaskSignal.RELEASED],
            backlog=self._backlog,
            attempt_counts=tuple(self._durations.counts),
            attempt_sum_s=self._durations.sum_s,
        )

    def wake(self) -> None:
        """Claim tasks now; call this after a transaction that created a task has committed.

        Optional: without the call the runner finds the task within ``TASK_POLL_S``.
        """
        self._woken.set()

    def stop(self) -> None:
        """Claim no more tasks, and let :meth:`run` return after the grace period of the running workers."""
        self._stopping.set()
        self._woken.set()

    async def run(self) -> None:
        """Run tasks until :meth:`stop`; release the tasks that have not ended ``TASK_STOP_GRACE_S`` later.

        The release takes a few seconds at most. If PostgreSQL is unavailable, read-only, or rejects the
        runner's own statements, the runner retries without limit.

        Raises:
            BaseException: An unexpected error in the runner's own code, which has stopped the runner.
        """
        claiming = asyncio.create_task(self._claim_until_stopped(), name="task-claims")
        heartbeat = asyncio.create_task(self._renew_leases(), name="task-leases")
        measuring = asyncio.create_task(self._measuring.run(), name="task-backlog")
        loops = (claiming, heartbeat, measuring)
        for loop in loops:
            loop.add_done_callback(self._stop_on_fault)
        if self._listener is not None:
            await self._listener.start()
        try:
            await self._stopping.wait()
            # Let a running claim end: tasks claimed by a cancelled statement would wait until their leases
            # end.
            await asyncio.wait({claiming}, timeout=_CLAIM_S)
            await self._finish_running()
        finally:
            if self._listener is not None:
                await self._listener.stop()
            for loop in loops:
                loop.cancel()
            await asyncio.wait(loops, timeout=_CANCEL_S)
            await self._release_all()
        if self._fault is not None:
            raise self._fault

    def _on_keys(self, keys: frozenset[str]) -> None:
        if not keys or keys & self._keys:
            self.wake()

    async def _claim_until_stopped(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            await self._claim()
            await self._wait_for_wake()

    async def _claim(self) -> None:
        free = self._settings.concurrency - len(self._held)
        self._left_some = free <= 0
        if self._left_some:
            return
        try:
            async with self._database.service_connection() as connection:
                tasks = await claim_tasks(
                    connection, list(self._workers), tasks_max=free, lease_s=self._settings.lease_s
                )
        except DatabaseError as error:
            if not self._claims_fail:
                self._claims_fail = True
                _log.warning("tasks not claimed; retrying", error_code=error.error_code, reason=str(error))
            self._signals.emit(TaskSignal.WAITING_FOR_DATABASE)
            return
        self._claims_fail = False
        self._left_some = len(tasks) == free
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
            is_cancelled=lambda: self._is_releasing or not self._holds(task),
        )
        running = asyncio.create_task(self._work(task, attempt), name=f"task {task.id}")
        running.add_done_callback(self._stop_on_fault)
        self._held[task.id] = (task, running)

    async def _work(self, task: Task, attempt: Attempt) -> None:
        names = {"task_id": str(task.id), "task_type": task.task_type, "command_id": str(task.command_id)}
        with bound_contextvars(**names):
            began_s = monotonic()
            try:
                outcome = await attempt.run()
            finally:
                self._durations.count(monotonic() - began_s)
        self._remove(task, outcome)

    def _stop_on_fault(self, done: asyncio.Task[None]) -> None:
        """Stop the runner if *done* raised an error, so that :meth:`run` releases its tasks and raises it."""
        if not done.cancelled() and (error := done.exception()) is not None:
            self._fault = error
            self.stop()

    def _holds(self, task: Task) -> bool:
        # This runner may have claimed a lost task again, with a new token.
        held = self._held.get(task.id)
        return held is not None and held[0].lease_token == task.lease_token

    def _remove(self, task: Task, outcome: AttemptOutcome) -> None:
        if not self._holds(task):
            return
        del self._held[task.id]
        self._signals.emit(TaskSignal[outcome.name])
        if self._left_some:
            self.wake()

    async def _wait_for_wake(self) -> None:
        try:
            await asyncio.wait_for(self._woken.wait(), self._settings.poll_s)
        except TimeoutError:
            return

    async def _measure(self) -> None:
        async with self._database.service_connection() as connection:
            self._backlog = await measure_backlog(connection, list(self._workers))

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_s / 4)
            if not self._held:
                continue
            held = [task for task, _ in self._held.values()]
            try:
                async with self._database.service_connection() as connection:
                    fences = [task.fence for task in held]
                    lost = await renew_leases(connection, fences, lease_s=self._settings.lease_s)
            except DatabaseError as error:
                # The workers continue: if the database is unavailable, no other runner can claim their tasks,
                # and the fencing token decides whether a result is accepted.
                _log.warning("leases not renewed; retrying", error_code=error.error_code)
                continue
            self._cancel_lost([task for task in held if task.id in lost])
            self._signals.emit(TaskSignal.RENEWED)

    def _cancel_lost(self, lost: list[Task]) -> None:
        for task in lost:
            held = self._held.get(task.id)
            if held is not None and held[0] is task:
                held[1].cancel()
                _log.info("task lost; worker cancelled", task_id=str(task.id))
                self._remove(task, AttemptOutcome.LOST)

    async def _finish_running(self) -> None:
        running = [work for _, work in self._held.values()]
        if running:
            await asyncio.wait(running, timeout=self._settings.stop_grace_s)

    async def _release_all(self) -> None:
        left = list(self._held.values())
        self._is_releasing = True
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
                "task not released; another runner can claim it when its lease ends",
                task_id=str(task.id),
                error_code=error.error_code,
            )
            released = False
        self._remove(task, AttemptOutcome.RELEASED if released else AttemptOutcome.LOST)
