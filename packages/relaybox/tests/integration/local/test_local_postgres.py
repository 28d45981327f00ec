"""The local PostgreSQL server: persistence, refusals and messages."""

import asyncio
import os
import signal
import socket
import sys
from collections import namedtuple
from pathlib import Path

import asyncpg
import pytest
from relaybox.local import (
    DataDirectoryInUse,
    DataDirectoryNotUsable,
    DataDirectoryOfAnotherVersion,
    DiskFull,
    LocalPostgres,
    PortTaken,
    ServerDidNotStart,
    ServerPart,
    Supervisor,
    free_port,
)
from relaybox.local._process import descendants, is_alive, wait_for_exit
from rich.console import Console

from tests.fixtures.bounds import WAIT_S

STARTER = """
import asyncio, signal, sys
from pathlib import Path
from relaybox.local import LocalPostgres
server = LocalPostgres(Path(sys.argv[1]), version=int(sys.argv[2]), durable=False)
asyncio.run(server.start())
print(server._process.pid, flush=True)
signal.pause()
"""


async def run(server: LocalPostgres, statement: str, *, user: str | None = None) -> object:
    user = user or server.owner_user
    password = server.owner_password if user == server.owner_user else server.service_password
    settings = server.settings()
    connection = await asyncpg.connect(
        host=server.host,
        port=server.port,
        user=user,
        password=password,
        database=settings["POSTGRES_DB"],
        ssl=False,
    )
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("end", ["fast", "immediate", "kill"])
async def test_restart_keeps_data_port_and_passwords(postgres: LocalPostgres, end: str) -> None:
    await run(postgres, "CREATE TABLE kept AS SELECT 42 AS answer")
    before = postgres.settings()

    if end == "kill":
        postgres.kill()
    else:
        await postgres.stop(end)  # pyright: ignore[reportArgumentType]
    await postgres.start()

    assert await run(postgres, "SELECT answer FROM kept") == 42
    assert postgres.settings() == before


async def test_role_of_services_owns_nothing(postgres: LocalPostgres) -> None:
    assert await run(postgres, "SELECT count(*) FROM pg_roles WHERE rolsuper AND rolname ~ '^relaybox'") == 0
    owner = await run(
        postgres, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
    )
    assert owner == "relaybox_owner"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await run(postgres, "CREATE TABLE mine (id int)", user=postgres.service_user)


async def test_wrong_password_is_refused(postgres: LocalPostgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(
            host=postgres.host, port=postgres.port, user="relaybox", password="guess", ssl=False
        )


async def test_passwords_are_readable_by_this_user_only(postgres: LocalPostgres) -> None:
    assert (postgres.resolved_data_dir / "passwords.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("durable", "fsync"), [(True, "on"), (False, "off")])
async def test_only_a_server_that_is_not_durable_skips_fsync(
    place: Path, postgres_version, durable, fsync
) -> None:
    server = LocalPostgres(place / "postgres", version=postgres_version, durable=durable)
    await server.start()
    try:
        assert await run(server, "SHOW fsync") == fsync
    finally:
        await server.stop()


async def test_data_of_another_major_version_is_refused(place: Path, postgres_version: int) -> None:
    cluster = place / "postgres" / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("15\n")

    with pytest.raises(DataDirectoryOfAnotherVersion) as refusal:
        await LocalPostgres(place / "postgres", version=postgres_version).start()

    for word in (
        str(cluster),
        "PostgreSQL 15",
        f"PostgreSQL {postgres_version}",
        "pg_upgrade",
        "POSTGRES_HOST",
    ):
        assert word in str(refusal.value)


async def test_port_in_use_names_its_process_and_the_setting(place: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken) as refusal:
            await LocalPostgres(place / "postgres", port=port).start()

    for word in (str(port), f"pid {os.getpid()}", "POSTGRES_PORT"):
        assert word in str(refusal.value)


async def test_directory_that_cannot_be_created_is_refused(place: Path) -> None:
    (place / "file").touch()
    with pytest.raises(DataDirectoryNotUsable, match="file/postgres"):
        await LocalPostgres(place / "file" / "postgres").start()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_directory_that_cannot_be_written_is_refused(place: Path) -> None:
    (place / "postgres").mkdir()
    (place / "postgres").chmod(0o500)
    with pytest.raises(DataDirectoryNotUsable):
        await LocalPostgres(place / "postgres" / "below").start()


async def test_full_disk_names_directory_and_free_space(place: Path, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(100, 99, 5 * 2**20))
    with pytest.raises(DiskFull, match=r"postgres: 5 MiB free"):
        await LocalPostgres(place / "postgres").start()


async def test_failed_start_has_the_last_lines_of_the_log(postgres: LocalPostgres) -> None:
    await postgres.stop()
    (postgres.resolved_data_dir / "cluster" / "postgresql.conf").write_text("nonsense = on\n")
    with pytest.raises(ServerDidNotStart, match=r"(?s)postgres.log:.*nonsense"):
        await postgres.start()
    assert postgres.settings()  # another start succeeds


async def test_stale_pid_file_does_not_prevent_a_start(postgres: LocalPostgres) -> None:
    pid_file = postgres.resolved_data_dir / "cluster" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    postgres.kill()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")

    await postgres.start()

    assert await run(postgres, "SELECT 1") == 1


async def test_start_stops_an_orphaned_server(postgres: LocalPostgres) -> None:
    orphan = postgres._running().pid
    assert postgres._lock is not None
    postgres._lock.release()
    successor = LocalPostgres(postgres.data_dir, version=postgres.version, durable=False)

    await successor.start()
    try:
        assert not is_alive(orphan) or postgres._running().exit_code is not None
        assert await run(successor, "SELECT 1") == 1
    finally:
        await successor.stop()


async def test_directory_in_use_is_refused_with_the_pid(postgres: LocalPostgres) -> None:
    with pytest.raises(DataDirectoryInUse, match=f"process {os.getpid()}"):
        await LocalPostgres(postgres.data_dir, version=postgres.version).start()
    assert await run(postgres, "SELECT 1") == 1


async def test_server_ends_with_its_parent(place: Path, postgres_version: int) -> None:
    starter = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STARTER, str(place / "postgres"), str(postgres_version)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert starter.stdout is not None
    pid = int(await asyncio.wait_for(starter.stdout.readline(), WAIT_S))

    starter.kill()
    await starter.wait()

    await asyncio.wait_for(wait_for_exit(pid), WAIT_S)


async def test_pause_and_resume_affect_every_process(postgres, until_frozen) -> None:
    root = postgres._running().pid
    processes = [root, *descendants(root)]
    assert len(processes) > 3

    postgres.pause()
    await until_frozen(processes)

    postgres.resume()
    assert await run(postgres, "SELECT 1") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL under another account")
async def test_data_moves_out_of_a_home_closed_to_the_account(place: Path, postgres_version) -> None:
    home = place / "home"
    home.mkdir(mode=0o700)
    server = LocalPostgres(home / "clone" / "postgres", version=postgres_version, durable=False)
    await server.start()
    first = server.resolved_data_dir
    await run(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    await server.stop()

    again = LocalPostgres(home / "clone" / "postgres", version=postgres_version, durable=False)
    await again.start()
    try:
        assert again.resolved_data_dir == first
        assert not again.resolved_data_dir.is_relative_to(home)
        assert await run(again, "SELECT answer FROM kept") == 42
    finally:
        await again.stop()
        again.remove()
    assert not first.exists()


async def test_supervisor_restarts_a_crashed_server(postgres: LocalPostgres, tmp_path) -> None:
    await postgres.stop()
    log = tmp_path / "log"

    async def compose(start) -> None:
        await start(ServerPart(name="postgresql", server=postgres))
        os.kill(postgres._running().pid, signal.SIGKILL)
        while log.read_text().count("ready in") < 2:  # noqa: ASYNC110 – the log is the only sign
            await asyncio.sleep(0.05)
        assert await run(postgres, "SELECT 1") == 1
        os.kill(os.getpid(), signal.SIGTERM)

    with log.open("w") as file:
        exit_code = await asyncio.wait_for(Supervisor(Console(file=file)).run(compose), WAIT_S)

    assert exit_code == 0
    assert "postgresql was ended by SIGKILL" in log.read_text()
    assert f"data in {postgres.resolved_data_dir}" in log.read_text()
    assert postgres._process is None
