"""Limits of time and size that uvicorn does not have."""

import asyncio
import logging
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from relaybox.settings import HttpSettings, load_settings

__all__ = ("HeadTimeoutProtocol",)

#: Bytes of the head of a request, with its first line; h11 has the same limit of its own.
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
        """What uvicorn's two protocols have in common."""

        transport: asyncio.Transport
        access_log: bool
        access_logger: logging.Logger
        #: The request that was begun last; None before the first one's head is complete.
        cycle: Any
        #: Of the head that is complete.
        parser: Any
        url: bytes
        headers: list[tuple[bytes, bytes]]

        def on_message_begin(self) -> None:
            """Begin a head; called by httptools alone."""

        def on_headers_complete(self) -> None:
            """End a head; called by httptools alone."""

        def on_message_complete(self) -> None:
            """End a body; called by httptools alone."""

        def _should_upgrade(self) -> bool: ...
else:
    _Protocol = AutoHTTPProtocol


class _HostRefused(Exception):
    """Raised for HTTP/1.1 without exactly one ``Host``; httptools wraps it, and uvicorn responds 400."""


@cache
def _configured_s() -> float:
    return load_settings(HttpSettings).head_timeout_s


class _JoiningTransport:
    """A transport that sends the head and the body of a response by one system call.

    Uvicorn writes them apart, and each write is a system call, a packet, and a wake-up of the client. Here a
    write waits for the next one, no longer than the event loop needs for the callbacks that are ready. One
    write waits at the most; every other method sends it first.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._waiting = b""

    def __getattr__(self, name: str) -> Any:
        self._flush()
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send *data* after what waits, or let it wait."""
        if self._waiting:
            data, self._waiting = self._waiting + data, b""
            self._transport.write(data)
        elif data:
            self._waiting = data
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        # uvloop raises for a write to a connection that has ended meanwhile.
        if self._waiting and not self._transport.is_closing():
            data, self._waiting = self._waiting, b""
            self._transport.write(data)


class HeadTimeoutProtocol(_Protocol):
    """Uvicorn's HTTP protocol with limits for the time and the size of a request's head.

    Uvicorn itself waits for ever for a client that connects and sends nothing, or a part of a head. This
    protocol closes such a connection after ``HTTP_HEAD_TIMEOUT_S``, and one on which a client keeps sending
    the rest of a body whose request was answered. A head over 64 KiB is answered 431 ``HEAD_TOO_LARGE``
    (RFC 6585, section 5): with httptools uvicorn collects a head of any size, and one of 60 MB stopped the
    event loop for seconds. An idle connection between two requests has uvicorn's own
    ``timeout_keep_alive``; a body has the time limit of :class:`relaybox.http.BodyLimitMiddleware`.

    An HTTP/1.1 request without a ``Host``, or with several, is answered 400 (RFC 9112, section 3.2).

    A request that offers to continue in HTTP/2 (``Upgrade: h2c``, as clients in Java do) is answered in
    HTTP/1.1 (RFC 9110, section 7.8): with httptools uvicorn loses the body of such a request.

    Run it as ``uvicorn.Config(app, http=HeadTimeoutProtocol)``, from a shell as
    ``uvicorn --http relaybox.serving:HeadTimeoutProtocol app:app``.
    """

    #: Seconds; None: ``HTTP_HEAD_TIMEOUT_S`` of the environment.
    head_timeout_s: ClassVar[float | None] = None
    _closing: asyncio.TimerHandle | None = None
    #: Received of a head that is not complete; None outside of heads.
    _head_bytes: int | None = None
    #: The bytes being parsed, for the part that follows a head with an upgrade that is ignored.
    _received = b""
    #: That head without its upgrade.
    _plain_head: bytes | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request's head."""
        joining = _JoiningTransport(cast("asyncio.Transport", transport))
        super().connection_made(cast("asyncio.Transport", joining))
        # Uvicorn asks only whether there is a handler, and composes lines that the logger's level drops.
        self.access_log = self.access_log and self.access_logger.isEnabledFor(logging.INFO)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; wait on unless they complete a head."""
        # What follows the end of a body in one chunk is not counted: most of the chunk is that body.
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
            self._wait_for_head()
        elif self._closing is not None:
            self._stop_waiting()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words, in plain text
        """Respond to malformed HTTP with an error body in JSON; called by uvicorn."""
        self.transport.write(_MALFORMED)
        self.transport.close()

    def on_message_begin(self) -> None:
        """Begin to count the bytes of a head."""
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop counting: the head is complete."""
        self._head_bytes = None
        if [name for name, _ in self.headers].count(b"host") != 1 and self.parser.get_http_version() != "1.0":
            raise _HostRefused
        if self.parser.should_upgrade() and not self._should_upgrade():
            self._plain_head = self._without_upgrade()
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the body; there is none yet where an upgrade is ignored."""
        if self._plain_head is None:
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        # Uvicorn calls this while it handles the exception with which httptools stops after the head.
        head, stopped = self._plain_head, sys.exc_info()[1]
        if head is not None and stopped is not None:
            self._plain_head = None
            self.data_received(head + self._received[stopped.args[0] :])

    def _without_upgrade(self) -> bytes:
        lines = [b"%b %b HTTP/1.1" % (self.parser.get_method(), self.url)]
        for name, value in self.headers:
            if name == b"connection":
                options = [one.strip() for one in value.split(b",")]
                kept = [one for one in options if one.lower() not in {b"upgrade", b"http2-settings"}]
                lines += [b"connection: " + b", ".join(kept)] if kept else []
            elif name not in {b"upgrade", b"http2-settings"}:
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])

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
