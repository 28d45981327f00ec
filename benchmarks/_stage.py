"""Start the servers and processes of benchmarks, create sessions, and print figures."""

import asyncio
import itertools
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from backend.api import PREFIX
from backend.genesis.muse import Brief, OfflineMuse
from backend.genesis.session import CreateSession, ReportProposal, genesis
from backend.migrations import ALL
from relaybox.commands import Caller, Command, CommandService
from relaybox.db import Database, migrate_up
from relaybox.http import make_token
from relaybox.local import LocalKafka, LocalPostgres, free_port
from relaybox.outbox import Notifier
from relaybox.settings import JwtSettings, KafkaSettings, PostgresSettings, load_settings
from relaybox.topics import ensure_topics
from rich.console import Console
from rich.table import Table
from shared_types.genesis import GenesisStage, Preferences, RequestConceptGeneration

__all__ = (
    "WRITER",
    "Process",
    "drained",
    "running",
    "seed_sessions",
    "servers",
    "show",
    "started",
    "submit_feedback",
    "token",
    "wait_for_port",
)

WRITER: Final = "writer"
FEEDBACK: Final = "Make the second concept darker, and let the lighthouse keeper lie from the first page on."
#: Enough shared buffers for all data of a benchmark; with less, a contestant would write dirty pages of the
#: previous contestant.
_OPTIONS: Final = {"shared_buffers": "512MB"}
_LOOK_S: Final = 0.02
_PENDING: Final = (Path(__file__).parent / "pending.sql").read_text()


@asynccontextmanager
async def servers(*, kafka: bool, **options: str) -> AsyncGenerator[LocalPostgres]:
    """Run PostgreSQL (with fsync) and optionally Kafka during a ``with`` block.

    Creates the product's schema, and sets the environment variables of this process to these servers.
    """
    place = _directory()
    postgres = LocalPostgres(place / "postgres", options={**_OPTIONS, **options})
    broker = LocalKafka(place / "kafka")
    try:
        async with asyncio.TaskGroup() as starting:
            starting.create_task(_start_with_schema(postgres))
            if kafka:
                starting.create_task(broker.start())
        if kafka:
            os.environ.update(broker.settings())
            await ensure_topics(load_settings(KafkaSettings), ["domain-events"])
        yield postgres
    finally:
        broker.kill()  # not stop(), which takes longer: the data directory is deleted anyway
        await postgres.stop("immediate")
        _remove(place)


async def _start_with_schema(postgres: LocalPostgres) -> None:
    """Start *postgres*, set the environment variables for its address, and create the product's schema."""
    await postgres.start()
    os.environ.update(postgres.settings())
    os.environ.update(JWT_SECRET=secrets.token_urlsafe(48), LOG_LEVEL="WARNING")
    await migrate_up(load_settings(PostgresSettings), *ALL)


def _directory() -> Path:
    place = Path(tempfile.mkdtemp(prefix="relaybox-bench-"))
    # If this process runs as root, PostgreSQL runs as another account, which needs access to the directory.
    place.chmod(0o755)
    return place


def _remove(place: Path) -> None:
    """Remove a directory in another process: on a disk that discards deleted blocks, this takes seconds."""
    # The process gets no stream of this process: readers of the stream would wait for the end of the removal.
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    subprocess.Popen(["rm", "-rf", place], start_new_session=True, **streams)


@contextmanager
def running(argv: Sequence[str], **environment: str) -> Generator[int]:
    """Run a process during a ``with`` block, and yield the port on which it listens."""
    with started(argv, **environment) as process:
        yield process.port


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """A process that listens on a port."""

    pid: int
    port: int


@contextmanager
def started(argv: Sequence[str], **environment: str) -> Generator[Process]:
    """Run a Python process during a ``with`` block, which begins when the process listens on its port."""
    port = free_port()
    given = {"API_PORT": str(port), "HEALTH_PORT": str(port), **environment}
    argv = [part.replace("{port}", str(port)) for part in argv]
    process = subprocess.Popen([sys.executable, "-m", *argv], env={**os.environ, **given})
    try:
        wait_for_port(process, port)
        yield Process(pid=process.pid, port=port)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until *process* listens on *port*."""
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        # Pause: a busy loop would use a core that the process needs.
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_S)
    raise SystemExit(f"{process.args!r} ended with exit code {process.returncode}")


def token() -> str:
    """Return a bearer token for the user who owns all sessions."""
    return make_token(load_settings(JwtSettings), WRITER, 86_400)


async def seed_sessions(count: int) -> list[UUID]:
    """Create *count* sessions by the command service, each with a proposal, so that it accepts feedback."""
    database = Database(load_settings(PostgresSettings), application_name="bench-seed")
    notifier = Notifier(database)
    commands = CommandService(database, [genesis], notifier=notifier, source_service="bench")
    ids = [uuid4() for _ in range(count)]
    brief = Brief(stage=GenesisStage.CONCEPT_SELECTION, preferences=Preferences(), seed="bench")
    proposal = (await OfflineMuse().propose(brief, _silent)).model_dump(mode="json")

    async def one(session_id: UUID) -> None:
        caller = Caller(actor=WRITER, source_service="bench", internal=True)
        create = Command(
            aggregate_id=session_id,
            command_type=CreateSession.__name__,
            payload={},
            caller=caller,
            creates=True,
        )
        request = Command(
            aggregate_id=session_id, command_type=RequestConceptGeneration.__name__, payload={}, caller=caller
        )
        report = Command(
            aggregate_id=session_id,
            command_type=ReportProposal.__name__,
            payload={"command_id": str(request.command_id), "proposal": proposal},
            caller=caller,
        )
        for command in (create, request, report):
            await commands.submit(command, domain=genesis)

    for start in range(0, count, 200):
        await asyncio.gather(*map(one, ids[start : start + 200]))
    await commands.close()
    await database.close()
    return ids


async def _silent(_percent: float) -> None:
    """Ignore the progress of a muse."""


async def drained() -> None:
    """Wait until the relay has published all rows of the outbox."""
    database = Database(load_settings(PostgresSettings), application_name="bench")
    while True:
        async with database.connection() as connection:
            rows = await connection.fetch(_PENDING)
        if not rows[0]["pending"]:
            break
        await asyncio.sleep(0.1)
    await database.close()


def submit_feedback(ids: Sequence[UUID], seed: int = 0) -> Iterator[bytes]:
    """Yield HTTP requests with ``SubmitFeedback``, without end; *seed* determines the order of sessions."""
    payload = {"feedback": FEEDBACK, "rating": 4}
    body = json.dumps({"command_type": "SubmitFeedback", "payload": payload}).encode()
    order = list(ids)
    random.Random(seed).shuffle(order)
    head = f"Host: bench\r\nAuthorization: Bearer {token()}\r\nContent-Type: application/json\r\n"
    rest = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    prepared = [f"POST {PREFIX}/{one}/commands HTTP/1.1\r\n".encode() + rest for one in order]
    return itertools.cycle(prepared)


def show(title: str, rows: Sequence[tuple[str, str]], figures: Mapping[str, Any]) -> None:
    """Print *rows* as a table, then *figures* as one JSON object, the last line."""
    table = Table(title=title)
    table.add_column("what")
    table.add_column("figure", justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    sys.stdout.write(json.dumps(dict(figures)) + "\n")
