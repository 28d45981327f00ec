"""A command is written completely or not at all when its process or connection dies at any table."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from relaybox.commands import CommandService
from relaybox.db import DatabaseBusy, DatabaseUnavailable
from relaybox.settings import PostgresSettings

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.counters import submit

POINTS = ("aggregate_snapshots", "command_inbox", "domain_events", "event_outbox")
_TERMINATE = (
    "SELECT count(pg_terminate_backend(pid, 20000)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND usename = 'relaybox'"
)
_ALIVE = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'relaybox'"


@pytest.fixture(params=POINTS)
async def held_at(
    request: pytest.FixtureRequest, superuser: asyncpg.Connection, counter_id: UUID
) -> AsyncIterator[str]:
    """Stop commands within their statement, where they write the table of this name."""
    await superuser.execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NEW; END';"
        f"CREATE TRIGGER hold AFTER INSERT OR UPDATE ON {request.param} FOR EACH ROW EXECUTE FUNCTION hold();"
        "SELECT pg_advisory_lock(7)"
    )
    yield request.param
    await superuser.execute("SELECT pg_advisory_unlock_all()")


@pytest.mark.guarantee("G01")
async def test_connection_lost_in_the_statement_leaves_nothing(
    service: CommandService, counter_id: UUID, superuser, held_at: str, until_blocked, written
) -> None:
    command = asyncio.create_task(submit(service, "Increase", counter_id, steps=3))
    await until_blocked()
    assert await superuser.fetchval(_TERMINATE)
    with pytest.raises(DatabaseUnavailable):
        await command

    assert (await written(counter_id)).version == 1
    await superuser.execute("SELECT pg_advisory_unlock(7)")
    assert (await submit(service, "Increase", counter_id, steps=3)).version == 4
    assert (await written(counter_id)).commands == 2


async def start_committer(settings: PostgresSettings, counter_id: UUID) -> asyncio.subprocess.Process:
    environment = {
        **os.environ,
        "POSTGRES_HOST": settings.host,
        "POSTGRES_PORT": str(settings.port),
        "POSTGRES_DB": settings.db,
        "POSTGRES_USER": settings.user,
        "POSTGRES_PASSWORD": settings.password.get_secret_value(),
        "PYTHONPATH": str(Path(__file__).parents[5]),
    }
    program = Path(__file__).with_name("committer.py")
    return await asyncio.create_subprocess_exec(
        sys.executable, str(program), str(counter_id), env=environment, stdout=asyncio.subprocess.PIPE
    )


@pytest.mark.guarantee("G01")
@pytest.mark.parametrize("released", [False, True], ids=["noticed by the server", "not noticed in time"])
async def test_killed_process_leaves_the_whole_command_or_nothing(
    postgres_settings: PostgresSettings,
    service: CommandService,
    counter_id: UUID,
    superuser,
    held_at: str,
    until_blocked,
    written,
    released: bool,
) -> None:
    await service._database.close()
    process = await start_committer(postgres_settings, counter_id)
    await until_blocked()
    process.send_signal(signal.SIGKILL)
    await process.wait()
    if released:
        await superuser.execute("SELECT pg_advisory_unlock(7)")
    async with asyncio.timeout(WAIT_S):
        while await superuser.fetchval(_ALIVE):
            pass

    assert await process.stdout.read() == b""
    look = await written(counter_id)
    whole, nothing = (4, 2), (1, 1)
    assert (look.version, look.commands) in ((whole, nothing) if released else (nothing,))


@pytest.mark.guarantee("G04")
async def test_lock_held_too_long_is_busy_and_writes_nothing(
    make_service, counter_id: UUID, superuser: asyncpg.Connection, written
) -> None:
    impatient = make_service(lock_timeout_ms=50)
    async with superuser.transaction():
        await superuser.execute("SELECT FROM aggregate_snapshots FOR UPDATE")
        with pytest.raises(DatabaseBusy):
            await submit(impatient, "Increase", counter_id)
    assert (await written(counter_id)).version == 1
    assert (await submit(impatient, "Increase", counter_id)).version == 2


@pytest.mark.guarantee("G01", "G02")
async def test_acknowledged_commands_exist_after_any_number_of_lost_connections(
    service: CommandService, counter_id: UUID, superuser: asyncpg.Connection, written
) -> None:
    acknowledged: list[int] = []
    unknown = 0
    for round_ in range(60):
        command = asyncio.create_task(submit(service, "Increase", counter_id))
        if round_ % 3 == 0:
            await superuser.fetchval(_TERMINATE)
        try:
            acknowledged.append((await command).version)
        except DatabaseUnavailable:
            unknown += 1
    look = await written(counter_id)
    assert len(acknowledged) == len(set(acknowledged)) >= 20
    assert len(acknowledged) + 1 <= look.version <= len(acknowledged) + unknown + 1
