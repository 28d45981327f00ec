"""Run blocking calls to Kafka in one thread."""

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, ParamSpec, TypeVar

__all__ = ("DaemonExecutor",)

P = ParamSpec("P")
T = TypeVar("T")


class DaemonExecutor:
    """Run blocking calls in order, one at a time, in a daemon thread.

    A ``ThreadPoolExecutor`` cannot be used, because the interpreter waits at exit for the threads of that
    class. A call to a frozen broker would then delay the end of the process for longer than a supervisor
    waits. The interpreter does not wait for a daemon thread.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Run *function* in the thread, after all calls submitted before; return the future of its result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - the caller awaits the future
                self._settle(loop, future, future.set_exception, error)
            else:
                self._settle(loop, future, future.set_result, result)

        self._calls.put(run)
        return future

    def shutdown(self) -> None:
        """Let the thread end after the submitted calls; do not wait for it."""
        self._calls.put(None)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs: :meth:`shutdown` was not called, or submitted calls have not ended."""
        return self._thread.is_alive()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    @staticmethod
    def _settle(
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Any],
        settle: Callable[[Any], None],
        value: Any,
    ) -> None:
        def settle_once() -> None:
            if not future.done():
                settle(value)

        # If the caller does not wait for a call, the event loop may be closed before the call ends.
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle_once)
