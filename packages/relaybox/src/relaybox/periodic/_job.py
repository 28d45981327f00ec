"""Repeat background work of a service, such as cleanup or measurements, at an interval."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from relaybox.db import TRANSIENT_ERRORS
from relaybox.telemetry import traceback_of

__all__ = ("PeriodicJob", "wait_at_most")

_log: Final = structlog.stdlib.get_logger(__name__)
_FAILED: Final = "periodic job failed; trying again"


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Wait for *event*, at most *seconds*."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


class PeriodicJob:
    """Execute an action at once and then with pauses of *interval_s* seconds until :meth:`stop`.

    An error never ends the job, because the database may be unavailable, or its migration may follow later. A
    transient database error is logged as a warning, any other error with its traceback.
    """

    def __init__(self, action: Callable[[], Awaitable[object]], *, name: str, interval_s: float) -> None:
        """Create the job without starting it; *name* identifies the job in the log."""
        self._action = action
        self._name = name
        self._interval_s = interval_s
        self._stopping = asyncio.Event()
        self._woken = asyncio.Event()

    @property
    def stopping(self) -> bool:
        """Whether :meth:`stop` was called; a long action should check this and return early."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Let :meth:`run` return after the current run of the action."""
        self._stopping.set()
        self._woken.set()

    def wake(self) -> None:
        """Run the action now; if the action is running, run it once more afterwards."""
        self._woken.set()

    async def run(self) -> None:
        """Repeat the action until :meth:`stop`."""
        while not self.stopping:
            self._woken.clear()
            await self._attempt(self._action)
            if not self.stopping:
                await wait_at_most(self._woken, self._pause_s())

    def _pause_s(self) -> float:
        """Return the seconds until the next run."""
        return self._interval_s

    async def _attempt(self, action: Callable[[], Awaitable[object]]) -> None:
        try:
            await action()
        except TRANSIENT_ERRORS as error:
            _log.warning(_FAILED, job=self._name, reason=str(error))
        except Exception as error:  # noqa: BLE001 - a periodic job must not end its service
            _log.error(_FAILED, job=self._name, traceback=traceback_of(error))
