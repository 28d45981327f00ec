"""A running flow: its steps, and its waits for events, resumes and times."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from pydantic_core import from_json
from relaybox_types.enums import HandleStatus
from relaybox_types.envelope import EventEnvelope
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.commands import Caller, CommandService
from relaybox.db import Database, Executor, Isolation, constraint_of, executor_of, load_queries
from relaybox.flows._errors import FlowCancelled, FlowChanged, FlowExpired, FlowInvalid
from relaybox.flows._guard import StepGuard, Suspended
from relaybox.flows._handles import (
    Handle,
    confirm_paused,
    expire_one,
    fetch_handle,
    lock_handle,
    pause,
    resume,
)
from relaybox.flows._json import NAME_CHARACTERS_MAX, check_text, check_wait, json_of
from relaybox.tasks import Task, TaskLost, suspend_task

__all__ = ("Flow", "StepFunction")

_SQL: Final = load_queries(__package__ or "relaybox.flows", "flows.sql")
_STEPS_MAX: Final = 1_000
#: The limit of an aggregate's id in an event. Keys are indexed, and an index entry has at most 2,704 bytes.
_KEY_CHARACTERS_MAX: Final = 255
_RESULT_BYTES_MAX: Final = 1_048_576
_STEP_KEY: Final = "flow_steps_pkey"
#: The shortest time of a pause. A wait whose timeout is not positive lasts this time, so it expires at once.
_MOMENT: Final = timedelta(microseconds=1)

#: Function that has the effect of a step in the transaction that records the step; returns a JSON value.
StepFunction = Callable[[AsyncSession], Awaitable[Any]]


class Flow:
    """A running flow: the engine passes this object to the flow's function, which calls its methods in turn.

    Guarantees (G44): the database changes of a step and the record that the step is done commit together, so
    no step changes the database twice, whatever process is killed. Effects of a step outside the database are
    repeated if the process dies before the commit.
    """

    def __init__(
        self,
        database: Database,
        task: Task,
        done: Sequence[tuple[str, Any]],
        *,
        event_types: Sequence[str] = (),
    ) -> None:
        self._database = database
        self._task = task
        self._event_types = event_types
        self._done = done
        self._position = 0
        self._names: Counter[str] = Counter()
        self._guard = StepGuard(task.task_type)
        #: Waits that ended in this run because their time was over.
        self.expired_waits = 0

    def __repr__(self) -> str:
        return f"<Flow {self._task.task_type} {self.id} [{self._position} steps]>"

    @property
    def id(self) -> UUID:
        """Id of the flow, and of its task."""
        return self._task.id

    @property
    def chain_id(self) -> UUID:
        """Chain to which the flow's events belong."""
        given = self._task.input_data.get("chain_id")
        return self.id if given is None else UUID(given)

    def correlation_id(self, name: str) -> str:
        """Return the correlation id by which :func:`relaybox.flows.resume` ends the wait called *name*."""
        return f"{self.id}/{name}"

    async def step(self, name: str, function: StepFunction) -> Any:
        """Run *function* in a transaction that also records the step, and return its result as JSON values.

        If an earlier call of the flow's function has recorded the step, return the recorded result instead.
        The transaction is READ COMMITTED: before *function* reads a row that it will change, it must lock
        the row.

        Args:
            name: Name of the step, unique in the flow, 1 to 120 characters.
            function: Gets the session of the transaction; may be called again after a failure.

        Raises:
            FlowChanged: The recorded step at this position has another name.
            FlowInvalid: The name is malformed or used twice, another step is running, an earlier step has
                failed, or the flow has 1,000 steps already.
            FlowDocumentInvalid: The result has over 1 MiB of JSON or cannot be stored.
            TaskLost: Another runner has taken over the flow, or the flow was cancelled.
        """
        recorded = self._begin(name)
        if recorded is not None:
            return recorded["value"]

        async def work(db: AsyncSession) -> Any:
            return (await self._record(db, name, {"value": await function(db)}))["value"]

        with self._guard.step(name):
            # READ COMMITTED: the renewal of the lease changes the task's row while the function runs.
            return await self._run_step(work, isolation="READ COMMITTED")

    async def command(
        self,
        service: CommandService,
        aggregate_id: UUID,
        command_type: str,
        payload: Mapping[str, Any],
        *,
        name: str | None = None,
    ) -> dict[str, Any]:
        """Execute a command as a step; the sender is an agent that has the flow's task type as its name.

        Args:
            service: Executes the command in the transaction of the step.
            aggregate_id: Id of the aggregate; for a command that creates one, a new id.
            command_type: Selects the domain and the handler.
            payload: The command's payload, as JSON types.
            name: Name of the step; None: *command_type*.

        Returns:
            ``command_id``, ``status`` and ``message`` of the command, as text.

        Raises:
            CommandError: The command was refused; the step is not recorded. To continue after a refusal, call
                ``service.process_command`` in a :meth:`step`, catch the error there and return a value.
        """
        caller = Caller(
            actor=self._task.task_type,
            source_service="flow",
            internal=True,
            correlation_id=self.chain_id,
        )

        async def send(db: AsyncSession) -> dict[str, str]:
            result = await service.process_command(aggregate_id, command_type, payload, db, caller=caller)
            return {"command_id": str(result.command_id), "status": result.status, "message": result.message}

        return await self.step(name or command_type, send)

    async def wait_for_resume(
        self,
        name: str,
        *,
        timeout: timedelta,  # noqa: ASYNC109 - days; no task waits for it
    ) -> dict[str, Any]:
        """Wait until :func:`relaybox.flows.resume` is called with ``flow.correlation_id(name)``.

        The flow holds no runner and no connection while it waits.

        Args:
            name: Name of the wait. A wait is a step: the rules and errors of :meth:`step` apply.
            timeout: Longest wait, counted from the first call with this name; at most 100 years.

        Returns:
            The payload of the resume.

        Raises:
            FlowExpired: The flow was not resumed within *timeout*, or *timeout* is not positive; the flow may
                catch this and continue.
            FlowCancelled: The wait was cancelled.
            FlowInvalid: *timeout* is longer than 100 years.
        """
        return await self._wait(name, timeout, None)

    async def wait_for(
        self,
        event_type: str,
        key: str,
        *,
        timeout: timedelta,  # noqa: ASYNC109 - days; no task waits for it
        name: str | None = None,
    ) -> EventEnvelope:
        """Wait for an event of *event_type* whose aggregate has the id *key*, and return the event.

        A consumer with the subscription of :func:`flow_subscription` must read the topic. An event arrives
        when this consumer records it. The wait also gets an event that arrived before this call, but not one
        from before the flow's start or ``events_since``, whichever is earlier. Each event ends at most one
        wait of a flow. A call of :func:`relaybox.flows.resume` without the event does not end the wait.

        Args:
            event_type: One of the event types that the flow declares.
            key: Id of the aggregate, 1 to 255 characters.
            timeout: As for :meth:`wait_for_resume`.
            name: Name of the wait, as for :meth:`wait_for_resume`; None: ``event_type/key``.

        Raises:
            FlowExpired: No such event arrived within *timeout*; the flow may catch this and continue.
            FlowCancelled: The wait was cancelled.
            FlowInvalid: *event_type* is not declared, or another argument is malformed.
        """
        check_text(f"the key of a wait for {event_type}", key, _KEY_CHARACTERS_MAX)
        if event_type not in self._event_types:
            raise FlowInvalid(
                f"{self._task.task_type} waits for {event_type}, which its event types do not include; "
                f"declare it with @flow(…, event_types=[{event_type!r}]), and pass the definition to "
                "flow_subscription"
            )
        found = await self._wait(name or f"{event_type}/{key}", timeout, (event_type, key))
        return EventEnvelope.model_validate(found)

    async def sleep_until(self, name: str, time: datetime) -> None:
        """Suspend the flow until *time*; later calls with this *name* use the time that the first recorded.

        Raises:
            FlowInvalid: *time* has no time zone, or is over 100 years away.
        """
        if time.tzinfo is None:
            raise FlowInvalid(f"the time of {name} has no time zone; use datetime.now(UTC) + …")
        check_wait(f"the time of {name!r}", time - datetime.now(UTC))

        async def give(_: AsyncSession) -> str:
            return time.astimezone(UTC).isoformat()

        until = datetime.fromisoformat(await self.step(name, give))
        with self._guard.step(name):
            await self._suspend_until(until)

    async def _suspend_until(self, time: datetime) -> None:
        """Suspend the flow until *time*; return if *time* has passed, and raise Suspended otherwise."""
        async with self._database.service_connection() as connection:
            if await _seconds_until(connection, time) <= 0:
                return
            await suspend_task(connection, self._task.fence, not_before=time)
        raise Suspended

    async def _wait(self, name: str, expires_in: timedelta, event: tuple[str, str] | None) -> dict[str, Any]:
        check_wait(f"the timeout of {name!r}", expires_in)
        recorded = self._begin(name)
        if recorded is None:
            with self._guard.step(name):
                recorded = await self._end_of_wait(name, max(expires_in, _MOMENT), event)
        if "cancelled" in recorded:
            raise FlowCancelled(self.correlation_id(name))
        if "expired" in recorded:
            raise FlowExpired(self.correlation_id(name), datetime.fromisoformat(recorded["expired"]))
        return recorded["value"]

    async def _end_of_wait(
        self, name: str, expires_in: timedelta, event: tuple[str, str] | None
    ) -> dict[str, Any]:
        """Record how the wait *name* ended, and return the record; raise Suspended if the wait continues."""
        ended = await self._run_step(lambda db: self._look(db, name, expires_in, event))
        if ended is None:
            raise Suspended
        self.expired_waits += "expired" in ended
        return ended

    async def _look(
        self, db: AsyncSession, name: str, expires_in: timedelta, event: tuple[str, str] | None
    ) -> dict[str, Any] | None:
        """Record and return how the wait *name* ended; suspend the flow and return None if it continues."""
        correlation_id = self.correlation_id(name)
        handle, value = await self._open_wait(db, correlation_id, expires_in, event)
        if handle.status is HandleStatus.RESUMED:
            return await self._record(db, name, {"value": value})
        if handle.status is HandleStatus.EXPIRED:
            # Delete the wait with an event that arrived too late, so that the event can end a later wait.
            await executor_of(db).fetch(_SQL["end_wait"], self.id, correlation_id)
            if handle.cancelled:
                return await self._record(db, name, {"cancelled": True})
            await expire_one(db, correlation_id)
            return await self._record(db, name, {"expired": handle.expires_at.isoformat()})
        await suspend_task(executor_of(db), self._task.fence, not_before=handle.expires_at)
        return None

    async def _open_wait(
        self, db: AsyncSession, correlation_id: str, expires_in: timedelta, event: tuple[str, str] | None
    ) -> tuple[Handle, Any]:
        """Begin the wait unless it has begun; return its handle, and the payload or event that resumed it.

        The payload or event is None if the wait was not resumed. A resume without the event does not end a
        wait for an event: the wait continues with the same deadline.
        """
        await lock_handle(db, correlation_id)
        handle = await fetch_handle(executor_of(db), correlation_id)
        while True:
            if handle is not None and handle.registered:
                if handle.status is not HandleStatus.RESUMED:
                    return handle, None
                value = handle.resume_payload if event is None else await self._event(db, correlation_id)
                if value is not None:
                    return handle, value
                left_s = await _seconds_until(executor_of(db), handle.expires_at)
                expires_in = max(timedelta(seconds=left_s), _MOMENT)
            handle = await self._begin_wait(db, correlation_id, expires_in, event)

    async def _begin_wait(
        self, db: AsyncSession, correlation_id: str, expires_in: timedelta, event: tuple[str, str] | None
    ) -> Handle:
        handle = await pause(
            db,
            correlation_id,
            resume_handle={"task_id": str(self.id)},
            expires_in=expires_in,
            chain_id=self.chain_id,
        )
        try:
            if event is not None:
                executor = executor_of(db)
                await executor.fetch(_SQL["lock_event_key"], *event)
                [row] = await executor.fetch(_SQL["begin_wait"], self.id, correlation_id, *event)
                if row["event"] is not None and not handle.resume_is_kept:
                    await resume(db, correlation_id, {})
            return await confirm_paused(db, correlation_id)
        except FlowExpired:  # a timeout of milliseconds was over before the flow was suspended
            expired = await fetch_handle(executor_of(db), correlation_id)
            assert expired is not None  # requested above
            return expired

    async def _event(self, db: AsyncSession, correlation_id: str) -> Any:
        """Return the event that the wait has got; None if it has none."""
        rows = await executor_of(db).fetch(_SQL["awaited_event"], self.id, correlation_id)
        return from_json(rows[0]["event"]) if rows and rows[0]["event"] is not None else None

    def _begin(self, name: str) -> dict[str, Any] | None:
        """Return the record of the next step, whose name must be *name*; None if the step is not done yet."""
        self._guard.check(name)
        check_text(f"the name of a step of {self._task.task_type}", name, NAME_CHARACTERS_MAX)
        self._names[name] += 1
        if self._names[name] > 1:
            raise FlowInvalid(
                f"step {name[:40]!r} of {self._task.task_type} is called twice; give each step of a flow its "
                "own name"
            )
        if self._guard.in_step:
            raise FlowInvalid(
                f"step {name[:40]!r} of {self._task.task_type} is called while another step runs; await the "
                "other step first"
            )
        if self._position >= _STEPS_MAX:
            raise FlowInvalid(
                f"{self._task.task_type} has over {_STEPS_MAX} steps; split it into several flows"
            )
        if self._position >= len(self._done):
            return None
        done, result = self._done[self._position]
        if done != name:
            raise FlowChanged(self._task.task_type, self._position, recorded=done, called=name)
        self._position += 1
        return result

    async def _run_step(
        self, work: Callable[[AsyncSession], Awaitable[Any]], *, isolation: Isolation = "REPEATABLE READ"
    ) -> Any:
        try:
            result = await self._database.run_in_transaction(work, isolation=isolation)
        except Exception as error:
            if constraint_of(error) == _STEP_KEY:  # another runner took over the flow and did the step
                raise TaskLost(self.id) from error
            raise
        self._position += 1
        return result

    async def _record(self, db: AsyncSession, name: str, document: dict[str, Any]) -> dict[str, Any]:
        """Record the step *name*, and return *document* as PostgreSQL returns it in later runs of the flow.

        PostgreSQL changes the order of the members of objects, for example, and returns 1e300 as an integer.
        """
        value = json_of(f"the result of step {name!r}", document, _RESULT_BYTES_MAX)
        fence = self._task.fence
        arguments = (fence.task_id, fence.lease_token, self._position, name, value)
        rows = await executor_of(db).fetch(_SQL["record_step"], *arguments)
        if not rows:
            raise TaskLost(self.id)
        return from_json(rows[0]["result"])

    def check_end(self) -> None:
        """Check, after the flow's function has returned, that it has called every recorded step.

        Raises:
            Suspended: The flow waits, but the function has caught this exception and has returned.
            FlowChanged: The function has returned before it called a recorded step.
        """
        if self._guard.is_suspended:
            raise Suspended
        if self._position < len(self._done):
            name, _ = self._done[self._position]
            raise FlowChanged(self._task.task_type, self._position, recorded=name, called=None)


async def _seconds_until(executor: Executor, time: datetime) -> float:
    [row] = await executor.fetch(_SQL["seconds_until"], time)
    return row["seconds"]
