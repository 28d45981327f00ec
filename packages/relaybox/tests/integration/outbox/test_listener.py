"""The listener receives notifications of commits, also after its connection breaks."""

import asyncio

import pytest
from relaybox.db import Database, DedicatedConnection
from relaybox.outbox import Listener

from tests.fixtures.bounds import WAIT_S


async def test_connection_that_breaks_before_listen_is_replaced(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = database.dedicated
    broken: list[DedicatedConnection] = []

    async def dedicated() -> DedicatedConnection:
        connection = await connect()
        if not broken:
            broken.append(connection)
            connection.terminate()
        return connection

    monkeypatch.setattr(database, "dedicated", dedicated)
    heard: list[frozenset[str]] = []
    listener = Listener(database, heard.append)
    await listener.start()
    async with asyncio.timeout(WAIT_S):
        await listener.listening.wait()
    await listener.stop()
    assert (len(broken), heard) == (1, [frozenset()])
