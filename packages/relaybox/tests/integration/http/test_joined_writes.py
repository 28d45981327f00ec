"""Head and body of a response are written to the connection together, and streams without delay."""

import asyncio
from typing import Any, cast

import uvloop
from relaybox.serving import HeadTimeoutProtocol

from tests.fixtures.http_serving import raw_connection, request_head, serve_app

GET = request_head("GET", "/")


WRITTEN: list[bytes] = []
TRANSPORTS: list[Any] = []


class Noting:
    """The server's transport; records what is written to it."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Record *data* and send it."""
        WRITTEN.append(data)
        self._transport.write(data)


class Recording(HeadTimeoutProtocol):
    """The protocol on a transport that records what is written."""

    def connection_made(self, transport: Any) -> None:
        """Start with no recorded writes, and store *transport*."""
        WRITTEN.clear()
        TRANSPORTS[:] = [transport]
        super().connection_made(cast("asyncio.BaseTransport", Noting(transport)))

    def connection_lost(self, exc: Exception | None) -> None:
        """End as a connection that the client has reset."""
        super().connection_lost(exc or ConnectionResetError())


async def whole(scope: Any, receive: Any, send: Any) -> None:
    """Respond with a body of known length."""
    length = (b"content-length", b"5")
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": b"whole"})


async def test_head_and_body_are_one_write() -> None:
    async with serve_app(whole, http=Recording) as port, raw_connection(port) as client:
        for _ in range(2):
            await client.send(GET)
            assert await client.status() == 200
    assert [one.partition(b"\r\n\r\n")[2] for one in WRITTEN] == [b"whole", b"whole"]


async def test_head_of_a_stream_does_not_wait_for_its_body() -> None:
    has_head = asyncio.Event()

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await has_head.wait()
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await send({"type": "http.response.body", "body": b"second", "more_body": True})
        await send({"type": "http.response.body", "body": b"third"})

    async with serve_app(stream, http=HeadTimeoutProtocol) as port, raw_connection(port) as client:
        await client.send(request_head("GET", "/", Connection="close"))
        assert await client.status() == 200
        has_head.set()
        received = await client.rest()
    assert received.index(b"first") < received.index(b"second") < received.index(b"third")
    assert received.endswith(b"0\r\n\r\n")


def test_write_that_waits_when_the_connection_ends_is_dropped() -> None:
    # uvloop, which the API runs on, raises for a write to a closed transport; asyncio's own loop ignores it.
    failures: list[Any] = []

    async def gone(scope: Any, receive: Any, send: Any) -> None:
        TRANSPORTS[0].abort()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            pass

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        async with serve_app(gone, http=Recording) as port, raw_connection(port) as client:
            await client.send(GET)
            assert await client.rest() == b""

    uvloop.run(main())
    assert failures == []
