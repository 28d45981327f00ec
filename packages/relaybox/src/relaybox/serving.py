"""Time limits that uvicorn does not have."""

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from relaybox.settings import HttpSettings, load_settings

__all__ = ("HeadTimeoutProtocol",)

if TYPE_CHECKING:

    class _Protocol(asyncio.Protocol):
        """What uvicorn's two protocols have in common."""

        transport: asyncio.Transport
        #: The request that was begun last; None before the first one's head is complete.
        cycle: Any
else:
    _Protocol = AutoHTTPProtocol


@cache
def _configured_s() -> float:
    return load_settings(HttpSettings).head_timeout_s


class HeadTimeoutProtocol(_Protocol):
    """Uvicorn's HTTP protocol with a time limit for the head of a request.

    Uvicorn itself waits for ever for a client that connects and sends nothing, or a part of a head. This
    protocol closes such a connection after ``HTTP_HEAD_TIMEOUT_S``, and one on which a client keeps sending
    the rest of a body whose request was answered. An idle connection between two requests has uvicorn's own
    ``timeout_keep_alive``; a body has the time limit of :class:`relaybox.http.BodyLimitMiddleware`.

    Run it as ``uvicorn.Config(app, http=HeadTimeoutProtocol)``, from a shell as
    ``uvicorn --http relaybox.serving:HeadTimeoutProtocol app:app``.
    """

    #: Seconds; None: ``HTTP_HEAD_TIMEOUT_S`` of the environment.
    head_timeout_s: ClassVar[float | None] = None
    _closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request's head."""
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; wait on unless they complete a head."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for_head()
        elif self._closing is not None:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        # A connection that was upgraded has another protocol by now.
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            self._stop_waiting()
        elif self._closing is None:
            timeout_s = _configured_s() if self.head_timeout_s is None else self.head_timeout_s
            self._closing = asyncio.get_running_loop().call_later(timeout_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
