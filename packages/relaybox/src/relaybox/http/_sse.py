"""Sending a live stream over ASGI."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relaybox.http._live import ServerSentEvent

__all__ = ("EventStreamResponse",)

#: A client that does not take an event within this time is dropped; it resumes after its cursor.
_SEND_S_MAX: Final = 10.0
_log = structlog.get_logger(__name__)


class EventStreamResponse(Response):
    """Sends events until the stream ends, the client leaves, or it is too slow.

    Every send is bounded, pings included, so that a client which stopped reading costs one
    buffer for a few seconds and then nothing.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[ServerSentEvent]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one client."""
        del scope
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        telling = asyncio.create_task(self._tell(send), name="event-stream")
        leaving = asyncio.create_task(_gone(receive), name="event-stream-client")
        try:
            await asyncio.wait((telling, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (telling, leaving):
                task.cancel()
            await asyncio.gather(telling, leaving, return_exceptions=True)
            await self._events.aclose()
        if not telling.cancelled() and (error := telling.exception()) is not None:
            raise error

    async def _tell(self, send: Send) -> None:
        try:
            async for event in self._events:
                async with asyncio.timeout(_SEND_S_MAX):
                    await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            _log.warning("stream.client_too_slow", limit_s=_SEND_S_MAX)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
