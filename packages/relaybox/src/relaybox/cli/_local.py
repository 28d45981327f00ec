"""``relaybox local``: a command, or a shell, beside a PostgreSQL and a Kafka of one's own."""

import asyncio
import os
import secrets
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import typer

from relaybox.cli._extras import needs_extra
from relaybox.db import BACKBONE, migrate_up
from relaybox.outbox import OutboxSettings
from relaybox.relay import Replication, ensure_topics
from relaybox.settings import KafkaSettings, PostgresSettings, RelaySettings, load_settings

__all__ = ("run_with_servers",)

_SECRET_BYTES = 48


async def run_with_servers(command: Sequence[str], data_dir: Path) -> int:
    """Run *command* with the servers' settings in its environment; returns its exit code.

    A server that ``POSTGRES_HOST`` or ``KAFKA_HOST`` names is used; else a local one runs as long as
    *command*, its data in *data_dir*. The schema is brought up and the topics of ``OUTBOX_TOPICS``
    are made. ``JWT_SECRET`` is made up for this run unless it is set.

    Raises:
        RelayboxError: a server cannot be had; says what to do.
    """
    async with AsyncExitStack() as servers:
        await _start_servers(servers, data_dir)
        await migrate_up(load_settings(PostgresSettings), BACKBONE)
        await ensure_topics(
            load_settings(KafkaSettings),
            load_settings(OutboxSettings).declared(),
            replication=Replication.of(load_settings(RelaySettings)),
        )
        os.environ["JWT_SECRET"] = os.environ.get("JWT_SECRET") or secrets.token_urlsafe(_SECRET_BYTES)
        return await _run(command)


async def _start_servers(servers: AsyncExitStack, data_dir: Path) -> None:
    # An empty one counts as unset, as everywhere.
    postgres_is_named, kafka_is_named = (bool(os.environ.get(f"{one}_HOST")) for one in ("POSTGRES", "KAFKA"))
    if postgres_is_named and kafka_is_named:
        return
    with needs_extra("local"):
        from relaybox.local import LocalKafka, LocalPostgres

        if not postgres_is_named:
            postgres = LocalPostgres(data_dir / "postgres")
            await postgres.start()
            servers.push_async_callback(postgres.stop)
            os.environ.update(postgres.settings())
        if not kafka_is_named:
            kafka = LocalKafka(data_dir / "kafka")
            await kafka.start()
            servers.push_async_callback(kafka.stop)
            os.environ.update(kafka.settings())
    typer.echo(f"local servers are ready, their data in {data_dir}; they stop with this command", err=True)


async def _run(command: Sequence[str]) -> int:
    loop = asyncio.get_running_loop()
    received: asyncio.Queue[int] = asyncio.Queue()
    # Before the command starts: a signal in between would end us and leave it behind, and the servers.
    # A terminal sends Ctrl-C to the command as well: it ends by it or not, and we end with it.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    # A terminal that is closed must not leave the servers behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, received.put_nowait, number)
    try:
        child = await asyncio.create_subprocess_exec(*command)
    except OSError as error:
        raise typer.BadParameter(f"{command[0]}: {error.strerror}", param_hint="COMMAND") from error
    passing_on = asyncio.create_task(_forward_signals(received, child))
    exit_code = await child.wait()
    passing_on.cancel()
    return exit_code if exit_code >= 0 else 128 - exit_code


async def _forward_signals(signals: asyncio.Queue[int], child: asyncio.subprocess.Process) -> None:
    while True:
        child.send_signal(await signals.get())
