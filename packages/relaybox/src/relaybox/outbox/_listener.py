"""Receive the notifications that :class:`Notifier` sends."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog

from relaybox.db import Database, DatabaseError, map_service_errors
from relaybox.outbox._notifier import OUTBOX_CHANNEL, channel_of

__all__ = ("Listener",)

_PAUSE_S: Final = 0.1
_PAUSE_S_MAX: Final = 2.0
_log = structlog.get_logger(__name__)


class Listener:
    """Listen on a dedicated connection, and call *on_keys* with the keys of committed events.

    An empty set means that any key may have new events: the listener has connected and may have missed
    notifications, or a notification had too many keys. *on_keys* runs in the event loop and must not block.
    """

    def __init__(self, database: Database, on_keys: Callable[[frozenset[str]], None]) -> None:
        self._database = database
        self._on_keys = on_keys
        self._task: asyncio.Task[None] | None = None
        #: Set while the connection listens; tests and start-up wait for it.
        self.listening = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Listener [{'listening' if self.listening.is_set() else 'not connected'}]>"

    async def start(self) -> None:
        """Start to listen in the background; PostgreSQL need not be reachable yet."""
        self._task = asyncio.create_task(self._run(), name="outbox-listener")

    async def stop(self) -> None:
        """Stop listening and close the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        pause_s = _PAUSE_S
        while True:
            try:
                await self._listen()
                pause_s = _PAUSE_S
            except DatabaseError as error:
                _log.debug(
                    "outbox listener not connected; events are found by polling", error_code=error.error_code
                )
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_S_MAX)

    async def _listen(self) -> None:
        """Listen until the connection ends."""
        ended = asyncio.Event()
        connection = await self._database.dedicated()
        try:
            connection.add_termination_listener(lambda _connection: ended.set())
            with map_service_errors():
                channel = channel_of(OUTBOX_CHANNEL, self._database.settings.schema_name)
                await connection.add_listener(channel, self._on_notification)
            self.listening.set()
            self._on_keys(frozenset())
            await ended.wait()
        finally:
            self.listening.clear()
            connection.terminate()

    def _on_notification(self, _connection: Any, _pid: int, _channel: str, payload: Any) -> None:
        self._on_keys(frozenset(filter(None, str(payload).split(","))))
