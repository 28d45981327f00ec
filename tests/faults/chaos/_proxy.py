"""A TCP proxy that cuts connections, and delays or drops bytes."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

_CHUNK_BYTES: Final = 65_536
_HOST: Final = "127.0.0.1"


class Direction(StrEnum):
    """The direction in which bytes travel."""

    REQUESTS = "requests"
    RESPONSES = "answers"


@dataclass(eq=False, kw_only=True, slots=True)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    #: Whether bytes were dropped: no later byte may arrive, as on a real network.
    lost_bytes: bool = False
    #: Tasks of the two directions.
    forwarders: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    def abort(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


class Proxy:
    """Forwards a port to a local server; injects no fault until a method is called.

    Dropping imitates a dead network: sent bytes do not arrive, and a connection that lost some is aborted
    when dropping ends. New connections open and get no response.
    """

    def __init__(self, server_port: int) -> None:
        """Describe the proxy of ``127.0.0.1:server_port``; nothing listens before :meth:`start`."""
        self.port = 0
        self._server_port = server_port
        self._delay_s = 0.0
        self._dropped: frozenset[Direction] = frozenset()
        self._connections: set[_Connection] = set()
        #: Tasks of the accepted connections, also of those that have no connection to the server yet.
        self._serving: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on a port that stays the same until :meth:`close`."""
        self._listener = await asyncio.start_server(self._serve, _HOST, 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Abort all connections and stop listening."""
        if self._listener is not None:
            self._listener.close()
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)  # the sockets are closed in the next turn of the loop

    def cut(self, share: float) -> int:
        """Abort *share* (0 to 1) of the connections, at least one; return their number."""
        open_ones = list(self._connections)
        wanted = open_ones[: max(1, round(share * len(open_ones)))]
        for connection in wanted:
            connection.abort()
        return len(wanted)

    def redirect(self, server_port: int) -> None:
        """Abort all connections; forward new ones to another server."""
        self._server_port = server_port
        self.cut(1.0)

    def delay(self, seconds: float) -> None:
        """Delay every chunk by *seconds* from now on; 0 ends the delay."""
        self._delay_s = seconds

    def drop(self, *directions: Direction) -> None:
        """Drop bytes in *directions*; without any, stop dropping and abort connections that lost bytes."""
        self._dropped = frozenset(directions)
        if not directions:
            for connection in [one for one in self._connections if one.lost_bytes]:
                connection.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            # If the server is down, the client gets an error as without a proxy. Until Python 3.12 asyncio
            # reports a cancelled connection of a server as an error.
            with suppress(OSError, asyncio.CancelledError):
                await self._connect(reader, writer)
        finally:
            writer.transport.abort()
            self._serving.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(_HOST, self._server_port)
        connection = _Connection(client=writer, server=server_writer)
        self._connections.add(connection)
        connection.forwarders = [
            asyncio.create_task(self._forward(reader, server_writer, connection, Direction.REQUESTS)),
            asyncio.create_task(self._forward(server_reader, writer, connection, Direction.RESPONSES)),
        ]
        try:
            await asyncio.wait(connection.forwarders, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._connections.discard(connection)
            connection.abort()
            for forwarder in connection.forwarders:
                forwarder.cancel()
            await asyncio.gather(*connection.forwarders, return_exceptions=True)

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: _Connection,
        direction: Direction,
    ) -> None:
        with suppress(OSError):  # one side closed: the end of this task closes the other
            while chunk := await reader.read(_CHUNK_BYTES):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                if direction in self._dropped or connection.lost_bytes:
                    connection.lost_bytes = True
                    continue
                writer.write(chunk)
                await writer.drain()
