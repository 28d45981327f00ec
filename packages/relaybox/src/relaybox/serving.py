"""Extend uvicorn's HTTP protocol: limit request heads, check ``Host``, ignore unsupported upgrades."""

import asyncio
import logging
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from relaybox.settings import HttpSettings, load_settings

__all__ = ("HeadTimeoutProtocol",)

#: Maximum size of a request's head (first line and headers); h11 has the same limit.
_HEAD_BYTES_MAX: Final = 65_536
_TOO_LARGE_BODY: Final = (
    b'{"error_code": "HEAD_TOO_LARGE", "message": "the first line and the headers of a request must not be'
    b' larger than 65536 bytes; send fewer or shorter headers"}'
)
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b"
) % (len(_TOO_LARGE_BODY), _TOO_LARGE_BODY)
_MALFORMED_BODY: Final = (
    b'{"error_code": "BAD_REQUEST", "message": "this is not an HTTP request: the first line, a header'
    b' (HTTP/1.1 requires one Host) or the chunking of the body is malformed; correct it"}'
)
_MALFORMED: Final = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b"
) % (len(_MALFORMED_BODY), _MALFORMED_BODY)

if TYPE_CHECKING:

    class _Protocol(asyncio.Protocol):
        """Attributes of uvicorn's protocols that this module uses; the protocol on h11 lacks some of them."""

        transport: asyncio.Transport
        access_log: bool
        access_logger: logging.Logger
        #: The last request and its response; None until the first head is complete.
        cycle: Any
        #: httptools' parser, and the URL and headers of the request whose head was parsed last.
        parser: Any
        url: bytes
        headers: list[tuple[bytes, bytes]]

        def on_message_begin(self) -> None:
            """Handle the start of a request's head; called by httptools, not by h11."""

        def on_headers_complete(self) -> None:
            """Handle the end of a request's head; called by httptools, not by h11."""

        def on_message_complete(self) -> None:
            """Handle the end of a request's body; called by httptools, not by h11."""

        def _should_upgrade(self) -> bool: ...
else:
    _Protocol = AutoHTTPProtocol


class _HostRefused(Exception):
    """Raised for an HTTP/1.1 request that does not have exactly one ``Host``.

    Raised in a callback that httptools calls. httptools reports a parser error, and uvicorn responds 400.
    """


@cache
def _configured_head_timeout_s() -> float:
    return load_settings(HttpSettings).head_timeout_s


class _CoalescingTransport:
    """A transport that sends the head and the body of a response in one system call.

    Uvicorn writes them separately, and each write costs a system call, a packet, and a wake-up of the client.
    This transport delays a write until the next write, or until the event loop has executed its ready
    callbacks. At most one write is delayed. Access to any other method or attribute first sends the delayed
    data.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._delayed = b""

    def __getattr__(self, name: str) -> Any:
        self._flush()
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send the delayed data together with *data*; if no data is delayed, delay *data*."""
        if self._delayed:
            data, self._delayed = self._delayed + data, b""
            self._transport.write(data)
        elif data:
            self._delayed = data
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        # Not on a closing connection, because uvloop raises an error for a write after the end.
        if self._delayed and not self._transport.is_closing():
            data, self._delayed = self._delayed, b""
            self._transport.write(data)


class HeadTimeoutProtocol(_Protocol):
    """Uvicorn's HTTP protocol with limits for the time and the size of a request's head.

    Uvicorn waits without limit for a client that connects and does not send a complete head. This protocol
    closes such a connection after ``HTTP_HEAD_TIMEOUT_S`` seconds. It closes a connection after the same time
    if the client continues to send a body although the response was sent.

    A head over 64 KiB gets 431 ``HEAD_TOO_LARGE`` (RFC 6585, section 5), because uvicorn with httptools
    buffers a head of any size: a head of 60 MB blocked the event loop for seconds.

    Two limits are set elsewhere: uvicorn's ``timeout_keep_alive`` limits the idle time between two requests,
    and :class:`relaybox.http.BodyLimitMiddleware` limits the time in which a body must arrive.

    An HTTP/1.1 request without a ``Host``, or with several, gets 400 (RFC 9112, section 3.2).

    An upgrade that uvicorn does not support is ignored (RFC 9110, section 7.8). For example, a request that
    offers HTTP/2 (``Upgrade: h2c``, as Java clients send) gets a response in HTTP/1.1. Without this, uvicorn
    with httptools would lose the body of such a request.

    Use this class as ``uvicorn.Config(app, http=HeadTimeoutProtocol)``, from a shell as
    ``uvicorn --http relaybox.serving:HeadTimeoutProtocol app:app``.
    """

    #: Time limit of a head in seconds; None: ``HTTP_HEAD_TIMEOUT_S`` from the environment.
    head_timeout_s: ClassVar[float | None] = None
    _timer: asyncio.TimerHandle | None = None
    #: Number of bytes received of a request head that is not complete; None while no head is being received.
    _head_bytes: int | None = None
    #: The argument of the current call of ``data_received``. httptools stops parsing after a head with an
    #: upgrade; if the upgrade is ignored, the data after the head is read from this attribute and parsed.
    _received = b""
    #: The head of a request whose upgrade is ignored, without the headers of the upgrade, to be parsed again;
    #: None if there is no such request.
    _plain_head: bytes | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timer for the first request's head, and coalesce the writes of responses."""
        coalescing = _CoalescingTransport(cast("asyncio.Transport", transport))
        super().connection_made(cast("asyncio.Transport", coalescing))
        # Uvicorn checks only whether the logger has a handler, and would format lines that the logger's level
        # then drops.
        self.access_log = self.access_log and self.access_logger.isEnabledFor(logging.INFO)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Parse *data*, and limit the time and the size of a head.

        The timer runs while the client sends a head, or anything else after a response, such as the rest of
        a body that the application did not read. It stops when a head is complete. A head over 64 KiB gets
        431, and the connection is closed.
        """
        # A head that begins after a body in the same chunk is not counted: most of the chunk may be the body.
        counts = self._head_bytes is not None or self.cycle is None or self.cycle.response_complete
        self._received = data
        super().data_received(data)
        self._received = b""
        if counts and self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES_MAX and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()
        if self.cycle is None or self.cycle.response_complete:
            self._start_timer()
        elif self._timer is not None:
            self._cancel_timer()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - replaced by an error body
        """Respond to malformed HTTP with an error body in JSON; called by uvicorn."""
        self.transport.write(_MALFORMED)
        self.transport.close()

    def on_message_begin(self) -> None:
        """Begin to count the bytes of a request's head."""
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Check ``Host`` of the complete head, and ignore an upgrade that uvicorn does not support."""
        self._head_bytes = None
        if [name for name, _ in self.headers].count(b"host") != 1 and self.parser.get_http_version() != "1.0":
            raise _HostRefused
        if self.parser.should_upgrade() and not self._should_upgrade():
            self._plain_head = self._without_upgrade()
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Pass the end of the body to uvicorn.

        After a head whose upgrade is ignored this method does nothing: httptools then calls this method
        before the body was parsed.
        """
        if self._plain_head is None:
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        # Uvicorn calls this while it handles httptools' exception about an upgrade. The exception's argument
        # is the position after the head: parse the head without the upgrade, then the rest.
        head, stopped = self._plain_head, sys.exc_info()[1]
        if head is not None and stopped is not None:
            self._plain_head = None
            self.data_received(head + self._received[stopped.args[0] :])

    def _without_upgrade(self) -> bytes:
        """Return the complete head without the headers of the upgrade."""
        lines = [b"%b %b HTTP/1.1" % (self.parser.get_method(), self.url)]
        for name, value in self.headers:
            if name == b"connection":
                options = [option.strip() for option in value.split(b",")]
                kept = [option for option in options if option.lower() not in {b"upgrade", b"http2-settings"}]
                lines += [b"connection: " + b", ".join(kept)] if kept else []
            elif name not in {b"upgrade", b"http2-settings"}:
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timer of the closed connection."""
        self._cancel_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        # No timer after a supported upgrade, for example to a WebSocket: the transport has another protocol.
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            self._cancel_timer()
        elif self._timer is None:
            timeout_s = _configured_head_timeout_s() if self.head_timeout_s is None else self.head_timeout_s
            self._timer = asyncio.get_running_loop().call_later(timeout_s, self.transport.close)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
