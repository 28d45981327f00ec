"""Measure CPU and memory of a process, and its queries to PostgreSQL (Linux)."""

import asyncio
import os
import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

__all__ = ("QueryCounter", "counting_proxy", "cpu_s", "peak_mb", "resident_mb")

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_CHUNK_BYTES: Final = 262_144
#: The code of the message SSLRequest. The proxy refuses TLS with ``N``; the client continues without TLS.
_TLS_WANTED: Final = 80_877_103
#: Types of client messages that are answered once: Sync, the end of an extended query, and Query, a simple
#: query.
_ASKS: Final = (b"S", b"Q")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process so far: all threads, user and system time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def resident_mb(pid: int) -> float:
    """Return the current resident memory in MB (10^6 bytes)."""
    return _status_mb(pid, "VmRSS:")


def peak_mb(pid: int) -> float:
    """Return the maximum of resident memory so far, in MB (10^6 bytes)."""
    return _status_mb(pid, "VmHWM:")


def _status_mb(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [kib] = [int(line.split()[1]) for line in lines if line.startswith(name)]
    return kib * 1_024 / 1e6


class QueryCounter:
    """Count the round trips of PostgreSQL clients by parsing their messages."""

    def __init__(self) -> None:
        #: Number of round trips so far.
        self.asked = 0

    def reader(self) -> "_ClientMessages":
        """Create the parser for the messages of one connection."""
        return _ClientMessages(self)


class _ClientMessages:
    """Parse the client messages of a connection (postgresql.org/docs/18/protocol-message-formats.html)."""

    def __init__(self, counter: QueryCounter) -> None:
        self._counter = counter
        self._buffer = bytearray()
        self._started = False

    def feed(self, chunk: bytes) -> None:
        """Parse bytes that the client has sent."""
        self._buffer += chunk
        while (size := self._size()) is not None and len(self._buffer) >= size:
            message = bytes(self._buffer[:size])
            del self._buffer[:size]
            if not self._started:
                self._started = int.from_bytes(message[4:8]) != _TLS_WANTED
            elif message[:1] in _ASKS:
                self._counter.asked += 1

    def _size(self) -> int | None:
        """Return the size of the first message in the buffer; None if too few bytes have arrived."""
        at = 1 if self._started else 0
        return at + int.from_bytes(self._buffer[at : at + 4]) if len(self._buffer) >= at + 4 else None


@contextmanager
def counting_proxy(port: int) -> Generator[tuple[int, QueryCounter]]:
    """Run a proxy to PostgreSQL at *port* that counts round trips, during a ``with`` block.

    Do not use it in timed runs, because it is slow. The proxy runs in a separate thread, so that the caller
    may block until a process ends.
    """
    counter, loop = QueryCounter(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="counting-proxy", daemon=True)
    thread.start()
    serving = asyncio.run_coroutine_threadsafe(_serve(port, counter), loop).result()
    try:
        yield serving.sockets[0].getsockname()[1], counter
    finally:
        asyncio.run_coroutine_threadsafe(_close(serving), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _close(serving: asyncio.Server) -> None:
    """Stop listening, and end the connections: asyncio would log an error for each task that still runs."""
    serving.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)  # the sockets are closed in the next turn of the loop


async def _serve(port: int, counter: QueryCounter) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Until Python 3.12 asyncio reports a cancelled connection of a server as an error.
        with suppress(asyncio.CancelledError), closing(writer):
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(
                _pass_on(reader, server_writer, counter.reader().feed),
                _pass_on(server_reader, writer, lambda _chunk: None),
                return_exceptions=True,
            )

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], None]
) -> None:
    with closing(writer):
        while chunk := await reader.read(_CHUNK_BYTES):
            look(chunk)
            writer.write(chunk)
            await writer.drain()
