"""Send a live stream to a client over ASGI."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relaybox.http._live import ServerSentEvent

__all__ = ("EventStreamResponse",)

#: Limit in seconds for sending one event. If the client reads so slowly that sending takes longer, the stream
#: ends; the client can reconnect with its cursor.
_SEND_S_MAX: Final = 10.0
_log = structlog.get_logger(__name__)


class EventStreamResponse(Response):
    """Send events until the stream ends, or the client disconnects or is too slow.

    A client is too slow if the server cannot send a message, pings included, within 10 s. So a client that
    does not read uses memory of the server for 10 s at most.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[ServerSentEvent]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events to the client of this request."""
        del scope
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        sending = asyncio.create_task(self._send_events(send), name="event-stream")
        disconnect = asyncio.create_task(_wait_for_disconnect(receive), name="event-stream-client")
        try:
            await asyncio.wait((sending, disconnect), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, disconnect):
                task.cancel()
            await asyncio.gather(sending, disconnect, return_exceptions=True)
            await self._events.aclose()
        if not sending.cancelled() and (error := sending.exception()) is not None:
            raise error

    async def _send_events(self, send: Send) -> None:
        try:
            async for event in self._events:
                async with asyncio.timeout(_SEND_S_MAX):
                    await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            _log.warning(
                "live stream ended: client did not read an event within the limit", limit_s=_SEND_S_MAX
            )


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
