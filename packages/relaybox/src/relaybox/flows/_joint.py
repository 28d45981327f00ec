"""Let flows that run at the same time share SQL statements."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from relaybox.db import DatabaseBusy, DatabaseUnavailable

__all__ = ("JointCalls",)

#: Most calls that one statement executes.
_CALLS_MAX: Final = 50

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class JointCalls(Generic[Argument, Result]):
    """Execute calls together: calls that arrive while a statement runs share the next statement.

    The reason is cost: a round trip and a COMMIT take longer than the work of one flow. If a statement of
    several calls fails, each call is executed by itself, so that one call does not fail the others. If
    PostgreSQL is unavailable or busy, all calls of the statement fail at once.
    """

    def __init__(self, execute: Callable[[Sequence[Argument]], Awaitable[Sequence[Result]]]) -> None:
        """*execute* gets the arguments of 1 to 50 calls, and returns their results in the same order."""
        self._execute = execute
        self._waiting: list[tuple[Argument, asyncio.Future[Result]]] = []
        self._running: asyncio.Task[None] | None = None

    async def call(self, argument: Argument) -> Result:
        """Execute a call with *argument* and return its result, or raise the error of its statement.

        If the caller is cancelled, a statement that is running continues, because other calls may share it.
        """
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((argument, result))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(), name="joint calls of flows")
        return await result

    async def _run(self) -> None:
        while self._waiting:
            calls, self._waiting = self._waiting[:_CALLS_MAX], self._waiting[_CALLS_MAX:]
            calls = [call for call in calls if not call[1].done()]
            if calls:
                await self._execute_together(calls)

    async def _execute_together(self, calls: Sequence[tuple[Argument, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._execute([argument for argument, _ in calls])
        except Exception as error:  # noqa: BLE001 - the callers get the error
            if len(calls) > 1 and not isinstance(error, DatabaseUnavailable | DatabaseBusy):
                for call in calls:
                    await self._execute_together([call])
                return
            for _, future in calls:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), result in zip(calls, results, strict=True):
                if not future.done():
                    future.set_result(result)
