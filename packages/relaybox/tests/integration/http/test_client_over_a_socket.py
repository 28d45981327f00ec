"""The client on real connections that break: which requests it sends again."""

import asyncio
from collections.abc import AsyncIterator

import httpx2 as httpx
import pytest
from relaybox.http.client import IdempotentClient, ResponseUnknown

ANSWER = b"HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\ndone"


class Server:
    """Reads a request, sends a part of the response, and closes the connection."""

    def __init__(self) -> None:
        #: The bytes to send for each request in turn; afterwards the whole response.
        self.sends: list[bytes] = []
        self.received: list[bytes] = []

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.received.append(head + await reader.readexactly(len(b'{"n":1}')))
        writer.write(self.sends.pop(0) if self.sends else ANSWER)
        await writer.drain()
        writer.close()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[IdempotentClient]:
    monkeypatch.setattr("relaybox.http.client._client.random", lambda: 0.0)
    listening = await asyncio.start_server(server.take, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        yield IdempotentClient(http, attempts_max=4)


async def test_connection_that_breaks_before_or_in_a_response_is_retried(
    server: Server, client: IdempotentClient
) -> None:
    server.sends = [b"", ANSWER[:20], ANSWER[:-1]]
    answer = await client.request("POST", "/orders", json={"n": 1})
    assert (answer.status_code, answer.content) == (201, b"done")
    assert len(server.received) == 4
    assert len(set(server.received)) == 1
    assert b'\r\nIdempotency-Key: "' in server.received[0]


async def test_response_that_cannot_be_decoded_is_requested_again(
    server: Server, client: IdempotentClient
) -> None:
    garbled = ANSWER.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    server.sends = [garbled]
    assert (await client.request("POST", "/orders", json={"n": 1})).content == b"done"
    server.sends = [garbled] * 4
    with pytest.raises(ResponseUnknown) as unknown:
        await client.request("POST", "/orders", json={"n": 1})
    assert f'"{unknown.value.key}"'.encode() in server.received[-1]


async def test_error_for_a_silent_server_has_the_key(server: Server, client: IdempotentClient) -> None:
    server.sends = [b""] * 4
    with pytest.raises(ResponseUnknown) as unknown:
        await client.request("POST", "/orders", json={"n": 1})
    assert f'"{unknown.value.key}"'.encode() in server.received[0]
    assert (await client.request("POST", "/orders", key=unknown.value.key, json={"n": 1})).content == b"done"
    assert len(set(server.received)) == 1
