"""Several servers, one of which accepts writes."""

import socket
from collections.abc import Iterator

import pytest
from relaybox.db import Database, DatabaseUnavailable
from relaybox.local import LocalPostgres
from relaybox.settings import PostgresSettings

from tests.fixtures.outages import read_only


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Return the port of a listener that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


async def ask(database: Database) -> int:
    connection = await database.dedicated()
    rows = await connection.fetch("SELECT 1 AS one")
    connection.terminate()
    return rows[0]["one"]


async def test_second_host_is_used_when_the_first_is_away(
    postgres_settings: PostgresSettings, unused_tcp_port: int
) -> None:
    here = f"{postgres_settings.host}:{postgres_settings.port}"
    hosts = f"127.0.0.1:{unused_tcp_port}, {here}"
    database = Database(postgres_settings.model_copy(update={"host": hosts}))
    async with database.connection() as connection:
        assert await connection.fetch("SELECT 1")
    await database.close()


async def test_silent_host_costs_its_time_limit_once(
    postgres_settings: PostgresSettings, silent: socket.socket
) -> None:
    here = f"{postgres_settings.host}:{postgres_settings.port}"
    hosts = f"127.0.0.1:{silent.getsockname()[1]},{here}"
    database = Database(postgres_settings.model_copy(update={"host": hosts, "connect_timeout_s": 2.0}))
    assert [await ask(database) for _ in range(3)] == [1, 1, 1]
    await database.close()
    silent.accept()[0].close()
    with pytest.raises(BlockingIOError):
        silent.accept()


async def test_error_names_every_host_that_was_tried(
    postgres_settings: PostgresSettings, unused_tcp_port_factory
) -> None:
    one, two = unused_tcp_port_factory(), unused_tcp_port_factory()
    hosts = f"127.0.0.1:{one},localhost:{two}"
    database = Database(postgres_settings.model_copy(update={"host": hosts}))
    with pytest.raises(DatabaseUnavailable, match=f"POSTGRES_HOST.*127.0.0.1:{one}.*localhost:{two}"):
        await ask(database)
    await database.close()


@pytest.mark.guarantee("G35")
async def test_read_only_server_is_skipped_unless_the_setting_is_any(
    postgres_settings: PostgresSettings, postgres_server: LocalPostgres
) -> None:
    strict = Database(postgres_settings)
    lax = Database(postgres_settings.model_copy(update={"target_session_attrs": "any"}))
    async with read_only(postgres_server):
        with pytest.raises(
            DatabaseUnavailable, match=r"read-only or a standby.*POSTGRES_TARGET_SESSION_ATTRS"
        ):
            await ask(strict)
        assert await ask(lax) == 1
    assert await ask(strict) == 1
    for database in (strict, lax):
        await database.close()
