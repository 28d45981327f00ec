"""The one thread that talks to Kafka."""

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, ParamSpec, TypeVar

__all__ = ("DaemonExecutor",)

P = ParamSpec("P")
T = TypeVar("T")


class DaemonExecutor:
    """Carries out blocking calls in order, one at a time.

    Not a ``ThreadPoolExecutor``: the interpreter waits for that one's threads when it ends, and a
    call to a broker that is frozen would hold up the end of the process for longer than a
    supervisor waits. This thread is left behind.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Carry out *function* when its turn comes; the future of what it returns or raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def carry_out() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - belongs to whoever awaits the future
                self._settle(loop, future, future.set_exception, error)
            else:
                self._settle(loop, future, future.set_result, result)

        self._calls.put(carry_out)
        return future

    def shutdown(self) -> None:
        """Let the thread end after the calls it has; does not wait for it."""
        self._calls.put(None)

    def _work(self) -> None:
        while (carry_out := self._calls.get()) is not None:
            carry_out()

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

        # The loop is closed when nobody waited for a call that was left behind.
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle_once)
