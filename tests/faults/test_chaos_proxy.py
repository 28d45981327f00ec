"""The proxy of `make chaos` cuts connections, and delays and drops bytes."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.faults.chaos._proxy import Direction, Proxy
from tests.fixtures.bounds import WAIT_S

HELD_S = 0.2


@pytest.fixture
async def heard() -> AsyncGenerator[tuple[Proxy, list[bytes]]]:
    """Open a proxy before an echo server; yield it with the bytes that the server received."""
    pieces: list[bytes] = []
    echoes: set[asyncio.Task[None] | None] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        echoes.add(asyncio.current_task())
        try:
            while piece := await reader.read(100):
                pieces.append(piece)
                writer.write(piece)
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = Proxy(server.sockets[0].getsockname()[1])
    await proxy.start()
    yield proxy, pieces
    await proxy.close()
    server.close()
    await asyncio.gather(*filter(None, echoes), return_exceptions=True)
    await asyncio.sleep(0)  # the sockets are closed in the next turn of the loop


async def connect(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await asked(reader, writer) == b"ping"
    return reader, writer


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"ping")
    return await asyncio.wait_for(reader.read(100), WAIT_S)


def tasks_of_proxies() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if "Proxy." in repr(task.get_coro())]


async def end_of(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(), WAIT_S)
    except ConnectionResetError:
        return b""


async def test_proxy_forwards_all_bytes_until_it_cuts(heard: tuple[Proxy, list[bytes]]) -> None:
    proxy, _ = heard
    reader, writer = await connect(proxy)
    assert proxy.cut(1.0) == 1
    assert await end_of(reader) == b""
    writer.close()


async def test_closed_proxy_ends_a_connection_that_is_being_opened(heard: tuple[Proxy, list[bytes]]) -> None:
    proxy, _ = heard
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    while not tasks_of_proxies():  # noqa: ASYNC110 - the proxy has not accepted the connection yet
        await asyncio.sleep(0)
    await proxy.close()
    writer.close()
    assert tasks_of_proxies() == []


async def test_proxy_delay_loses_no_bytes(heard: tuple[Proxy, list[bytes]]) -> None:
    proxy, _ = heard
    reader, writer = await connect(proxy)
    proxy.delay(HELD_S)
    asked_s = time.monotonic()
    assert await asked(reader, writer) == b"ping"
    assert time.monotonic() - asked_s >= 2 * HELD_S
    writer.close()


@pytest.mark.parametrize(("way", "pieces_heard"), [(Direction.REQUESTS, 1), (Direction.RESPONSES, 2)])
async def test_proxy_drop_discards_bytes_and_ends_the_connection(
    heard: tuple[Proxy, list[bytes]], way: Direction, pieces_heard: int
) -> None:
    proxy, pieces = heard
    (reader, writer), (other_reader, other_writer) = await connect(proxy), await connect(proxy)
    pieces.clear()
    pieces.append(b"before")
    proxy.drop(way)
    writer.write(b"ping")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(100), HELD_S)
    assert len(pieces) == pieces_heard
    proxy.drop()
    assert await end_of(reader) == b"", "a connection that lost bytes went on"
    assert await asked(other_reader, other_writer) == b"ping", "one that lost none was cut"
    for each in (writer, other_writer):
        each.close()
