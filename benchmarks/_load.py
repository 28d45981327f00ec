"""Generate HTTP load with low overhead: keep-alive connections, prepared requests, only the status is parsed.

Closed loop: each connection sends its next request after the response to the previous request; for
throughput. Open loop: each request is sent at its scheduled time, even if earlier responses are late; for
latency, without coordinated omission.
"""

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

__all__ = ("Address", "Load", "closed_loop", "open_loop", "percentile")

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"

Address = tuple[str, int]


@dataclass(kw_only=True, slots=True)
class Load:
    """Counts and times of the responses to the requests of a load."""

    #: Number of responses with a 2xx status.
    answered: int = 0
    #: Number of responses with another status than 2xx, by status.
    refused: dict[int, int] = field(default_factory=dict[int, int])
    #: Duration of the load.
    seconds: float = 0.0
    #: Seconds from each request's scheduled time to its response; empty for a closed loop.
    latencies_s: list[float] = field(default_factory=list[float])

    @property
    def per_s(self) -> float:
        """Number of responses with a 2xx status per second."""
        return self.answered / self.seconds

    def require_success(self, server: str) -> None:
        """End the benchmark if *server* sent a response with another status than 2xx."""
        if self.refused:
            raise SystemExit(f"{server} refused requests; number of responses by status: {self.refused}")

    def count(self, status: int) -> None:
        """Count one response with *status*."""
        if status // 100 == 2:
            self.answered += 1
        else:
            self.refused[status] = self.refused.get(status, 0) + 1


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request in flight at a time."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None
        #: Whether the connection is closed; servers close idle connections.
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport; asyncio calls this method when the connection is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Complete a response when all its bytes have arrived; only its status is parsed."""
        self._buffer += data
        head_end = self._buffer.find(_HEAD_END)
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        at = head.find(_LENGTH)
        length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) < head_end + len(_HEAD_END) + length:
            return
        self._buffer = b""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the call of :meth:`ask` that waits for a response raise the error of the connection."""
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))

    async def ask(self, request: bytes) -> int:
        """Send one request, and return the status of the response."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


async def _connect(address: Address) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, *address)
    return connection


async def closed_loop(
    address: Address, requests: Iterator[bytes], *, connections: int, seconds: float
) -> Load:
    """Send requests on *connections* for *seconds*, or until there are no more *requests*."""
    load = Load()
    opened = [await _connect(address) for _ in range(connections)]
    began = time.perf_counter()

    async def client(connection: Connection) -> None:
        for request in requests:
            if time.perf_counter() - began >= seconds:
                return
            load.count(await connection.ask(request))

    await asyncio.gather(*map(client, opened))
    load.seconds = time.perf_counter() - began
    for connection in opened:
        connection.close()
    return load


async def open_loop(address: Address, requests: Iterator[bytes], *, per_s: float, total: int) -> Load:
    """Send requests at their scheduled times, *per_s* per second.

    A request uses a connection without a pending response; if there is none, a new connection is opened. The
    load ends after *total* requests, or after the last of *requests*.
    """
    load = Load()
    free: list[Connection] = []
    began = time.perf_counter()

    async def one(due: float, request: bytes) -> None:
        while free and free[-1].closed:
            free.pop()
        connection = free.pop() if free else await _connect(address)
        load.count(await connection.ask(request))
        load.latencies_s.append(time.perf_counter() - due)
        free.append(connection)

    sent: list[asyncio.Task[None]] = []
    for number, request in enumerate(islice(requests, total)):
        due = began + number / per_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        sent.append(asyncio.create_task(one(due, request)))
    await asyncio.gather(*sent)
    load.seconds = time.perf_counter() - began
    for connection in free:
        connection.close()
    return load


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the least of *values* that at least *percent* % of them do not exceed (nearest rank)."""
    rank = math.ceil(percent * len(values) / 100)
    return sorted(values)[max(1, rank) - 1]
