"""Connections on which no request's head arrives are closed, whatever else the client sends."""

import json
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
import uvicorn
from relaybox.serving import HeadTimeoutProtocol

from tests.fixtures.http_serving import raw_connection, request_head, serve_app


class Timed(HeadTimeoutProtocol):
    """The protocol with a time limit that each test sets for the data sent afterwards."""

    head_timeout_s: ClassVar[float | None]


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Respond with the number of bytes received; ``/early`` responds before it reads any."""
    taken_bytes, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        taken_bytes, more = taken_bytes + len(message["body"]), message["more_body"]
    body = b"%d" % taken_bytes
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    Timed.head_timeout_s = 600.0
    async with serve_app(answer, http=Timed) as bound:
        yield bound


def test_uvicorn_loads_the_protocol_by_its_name() -> None:
    config = uvicorn.Config(answer, http="relaybox.serving:HeadTimeoutProtocol", log_config=None)
    config.load()
    assert config.http_protocol_class is HeadTimeoutProtocol


HEAD = request_head("GET", "/", Accept="*/*")
UNFINISHED = {"nothing": "", "a part of the first line": "GET /", "a part of a head": HEAD[:-2]}


@pytest.mark.guarantee("G83")
@pytest.mark.parametrize("sent", UNFINISHED.values(), ids=UNFINISHED)
async def test_connection_without_a_complete_head_is_closed(port: int, sent: str) -> None:
    Timed.head_timeout_s = 0.1
    async with raw_connection(port) as client:
        await client.send(sent)
        assert await client.rest() == b""


async def test_second_head_of_a_connection_has_a_time_limit(port: int) -> None:
    async with raw_connection(port) as client:
        await client.send(HEAD)
        assert await client.status() == 200
        Timed.head_timeout_s = 0.01
        await client.send(HEAD[:-2])
        assert await client.rest() == b"0"


async def test_body_that_continues_after_the_response_has_a_time_limit(port: int) -> None:
    async with raw_connection(port) as client:
        await client.send(request_head("POST", "/early", Content_Length="1000"))
        assert await client.status() == 200
        Timed.head_timeout_s = 0.01
        await client.send(b"x")
        assert await client.rest() == b"0"


async def test_body_may_take_longer_than_a_head(port: int) -> None:
    # The first head must arrive within the limit, also on a busy machine.
    Timed.head_timeout_s = 1.0
    async with raw_connection(port) as slow, raw_connection(port) as silent:
        await slow.send(request_head("POST", "/", Content_Length="1", Expect="100-continue"))
        assert await slow.status() == 100
        # This connection began later, so the time limit of the first one has passed.
        assert await silent.rest() == b""
        await slow.send("x")
        assert await slow.status() == 200


@pytest.mark.parametrize("path", ["/", "/early"])
async def test_head_over_64_kib_is_refused_and_the_connection_closed(port: int, path: str) -> None:
    async with raw_connection(port) as client:
        await client.send(request_head("GET", path, X_Large="x" * 60_000))
        assert await client.status() == 200
    async with raw_connection(port) as client:
        await client.send(f"GET {path} HTTP/1.1\r\nHost: test\r\nX-Large: {'x' * 66_000}")
        assert await client.status() == 431
        assert b"HEAD_TOO_LARGE" in await client.rest()


async def test_large_body_is_not_counted_as_a_head(port: int) -> None:
    body = "x" * 300_000
    async with raw_connection(port) as client:
        await client.send(request_head("POST", "/", Content_Length=str(len(body))) + body)
        assert await client.status() == 200


@pytest.mark.parametrize("sent", ["nonsense\r\n\r\n", "GET / HTTP/1.1\r\nA b: 1\r\n\r\n"])
async def test_malformed_head_is_refused_with_an_error_body(port: int, sent: str) -> None:
    async with raw_connection(port) as client:
        await client.send(sent)
        head_part, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert head_part.startswith(b"HTTP/1.1 400 ")
    assert b"application/json" in head_part
    assert json.loads(body)["error_code"] == "BAD_REQUEST"


@pytest.mark.parametrize("hosts", ["", "Host: a\r\nHost: a\r\n"], ids=["none", "two"])
async def test_http_1_1_without_one_host_is_refused(port: int, hosts: str) -> None:
    async with raw_connection(port) as client:
        await client.send(f"GET / HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n")
        received = await client.rest()
    assert received.startswith(b"HTTP/1.1 400 ")
    assert "requires one Host" in json.loads(received.partition(b"\r\n\r\n")[2])["message"]


async def test_http_1_0_without_a_host_is_served(port: int) -> None:
    async with raw_connection(port) as client:
        await client.send("GET / HTTP/1.0\r\n\r\n")
        assert await client.status() == 200


async def test_malformed_chunk_of_a_body_is_named_in_the_error(port: int) -> None:
    async with raw_connection(port) as client:
        await client.send(request_head("POST", "/", Transfer_Encoding="chunked") + "zz\r\n")
        body = (await client.rest()).partition(b"\r\n\r\n")[2]
    assert "chunking of the body" in json.loads(body)["message"]


HTTP2_OFFERED = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2_Settings": "AAMAAABk"}


async def test_body_of_a_request_that_offers_http2_is_received(port: int) -> None:
    last = request_head("GET", "/", Connection="close")
    async with raw_connection(port) as client:
        await client.send(request_head("POST", "/", Content_Length="7", **HTTP2_OFFERED) + "1234567" + last)
        received = await client.rest()
    assert received.count(b"HTTP/1.1 200 ") == 2
    assert received.partition(b"\r\n\r\n")[2].startswith(b"7")


async def test_body_after_the_head_that_offers_http2_is_received(port: int) -> None:
    async with raw_connection(port) as client:
        await client.send(
            request_head("POST", "/", Content_Length="7", Expect="100-continue", **HTTP2_OFFERED)
        )
        assert await client.status() == 100
        await client.send("1234567" + request_head("GET", "/", Connection="close"))
        received = await client.rest()
    assert received.count(b"HTTP/1.1 200 ") == 2
    assert received.partition(b"\r\n\r\n")[2].startswith(b"7")
