"""Implement ``relaybox local``: run a command or a shell with a PostgreSQL and a Kafka."""

import asyncio
import os
import secrets
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import typer

from relaybox.cli._errors import needs_extra
from relaybox.db import BACKBONE, migrate_up
from relaybox.outbox import OutboxSettings
from relaybox.settings import KafkaSettings, PostgresSettings, RelaySettings, load_settings
from relaybox.topics import Replication, ensure_topics

__all__ = ("run_with_servers",)

_SECRET_BYTES = 48


async def run_with_servers(command: Sequence[str], data_dir: Path) -> int:
    """Run *command* with the servers' settings in its environment and return its exit code.

    Uses the servers that ``POSTGRES_HOST`` and ``KAFKA_HOST`` name. For each of these variables that is not
    set, starts a local server, and stops it when *command* ends. Migrates the schema, creates the
    topics of ``OUTBOX_TOPICS``, and generates a ``JWT_SECRET`` for this run unless it is set.

    Args:
        command: The program to run and its arguments.
        data_dir: Directory for the data of the local servers.

    Returns:
        The exit code of *command*; 128 + n if signal n killed it.

    Raises:
        RelayboxError: A server cannot be started or reached; the message says what to do.
        BadParameter: *command* cannot be executed; typer exits with code 2.
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
    # An empty variable counts as unset, as in all settings.
    start_postgres, start_kafka = not os.environ.get("POSTGRES_HOST"), not os.environ.get("KAFKA_HOST")
    if not (start_postgres or start_kafka):
        return
    with needs_extra("local"):
        from relaybox.local import LocalKafka, LocalPostgres

        if start_postgres:
            postgres = LocalPostgres(data_dir / "postgres")
            await postgres.start()
            servers.push_async_callback(postgres.stop)
            os.environ.update(postgres.settings())
        if start_kafka:
            kafka = LocalKafka(data_dir / "kafka")
            await kafka.start()
            servers.push_async_callback(kafka.stop)
            os.environ.update(kafka.settings())
    typer.echo(f"local servers are ready; data in {data_dir}; they stop when the command ends", err=True)


async def _run(command: Sequence[str]) -> int:
    loop = asyncio.get_running_loop()
    received: asyncio.Queue[int] = asyncio.Queue()
    # The handlers are added before the command starts, because a signal without a handler would end this
    # process and leave the command and the servers running. SIGINT is ignored: at Ctrl-C the terminal also
    # sends SIGINT to the command, and this process waits for the end of the command.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    # SIGHUP is what a closed terminal sends; unhandled, it would leave the servers running.
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, received.put_nowait, number)
    try:
        child = await asyncio.create_subprocess_exec(*command)
    except OSError as error:
        raise typer.BadParameter(f"{command[0]}: {error.strerror}", param_hint="COMMAND") from error
    forwarding = asyncio.create_task(_forward_signals(received, child))
    exit_code = await child.wait()
    forwarding.cancel()
    return exit_code if exit_code >= 0 else 128 - exit_code


async def _forward_signals(signals: asyncio.Queue[int], child: asyncio.subprocess.Process) -> None:
    while True:
        child.send_signal(await signals.get())
