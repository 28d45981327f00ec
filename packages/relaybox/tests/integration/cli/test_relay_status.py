"""``relaybox relay status``, ``lanes`` and ``accept`` on a real PostgreSQL."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable

import pytest
from relaybox.cli import app
from relaybox.db import Database
from relaybox.settings import PostgresSettings
from typer.testing import CliRunner, Result

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.outbox_rows import fail_rows, operator_acts
from tests.fixtures.relays import put_events

RELAYBOX = (sys.executable, "-c", "from relaybox.cli import app; app()")
JOIN = """
    INSERT INTO relay_members (name, lease_until, place, delivery, breaker, published_total)
    VALUES ($1, clock_timestamp() + interval '1 hour', 'host-1 4711', 'at-least-once', 'half-open', 42)
"""
Relay = Callable[..., Awaitable[Result]]


@pytest.fixture
def variables(postgres_settings: PostgresSettings) -> dict[str, str]:
    return {
        "POSTGRES_HOST": postgres_settings.host,
        "POSTGRES_PORT": str(postgres_settings.port),
        "POSTGRES_DB": postgres_settings.db,
        "POSTGRES_USER": postgres_settings.user,
        "POSTGRES_PASSWORD": postgres_settings.password.get_secret_value(),
        "COLUMNS": "220",
    }


@pytest.fixture
def relay(variables: dict[str, str]) -> Relay:
    async def run(*arguments: str, **more: str) -> Result:
        # In a thread, because a command runs its own event loop.
        return await asyncio.to_thread(CliRunner().invoke, app, ["relay", *arguments], env=variables | more)

    return run


async def test_status_shows_relays_lanes_and_backlog(database: Database, relay: Relay) -> None:
    name = f"relay-{uuid.uuid4()}"
    await put_events(database, "domain-events", ["a"], count=3)
    await fail_rows(database, 1)
    async with database.connection() as connection:
        await connection.fetch(JOIN, name)
        await connection.fetch(
            "UPDATE relay_lanes SET owner = $1, lease_until = now() + interval '1 hour' WHERE lane < 2", name
        )
        await connection.fetch("UPDATE relay_lanes SET fault = 'an unknown marker' WHERE lane = 7")
    output = (await relay("status")).stdout
    assert output.startswith("2 pending, the oldest for ")
    assert "0 retrying, 1 failed, 0 skipped, 8 lanes\n" in output
    [line] = [line for line in output.splitlines() if "4711" in line]
    assert line.split()[:7] == [name[:14], "host-1", "4711", "at-least-once", "half-open", "2", "42"]
    assert output.splitlines()[-1].endswith("an unknown marker")

    status = json.loads((await relay("status", "--json")).stdout)
    assert [lane["owner"] for lane in status["lanes"]] == [name, name, *[None] * 6]
    assert (status["pending"], status["failed"], status["published_per_s"]) == (2, 1, None)


async def test_status_can_be_read_at_80_columns(database: Database, relay: Relay) -> None:
    name, fault = f"relay-{uuid.uuid4()}", f"lane 7: Kafka's marker is {uuid.uuid4()}"
    async with database.connection() as connection:
        await connection.fetch(JOIN, name)
        await connection.fetch(
            "UPDATE relay_lanes SET owner = $1, lease_until = now() + interval '1 hour' WHERE lane < 2", name
        )
        await connection.fetch("UPDATE relay_lanes SET fault = $1 WHERE lane = 7", fault)
    lines = (await relay("status", COLUMNS="80")).stdout.splitlines()
    assert ["place", "host-1", "4711"] in [line.split() for line in lines]
    [head] = [number for number, line in enumerate(lines) if line.split()[:2] == ["lane", "hashes"]]
    lanes = [line.split() for line in lines[head + 1 : head + 9]]
    assert [cells[0] for cells in lanes] == [str(number) for number in range(8)]
    assert lanes[0][1:3] == ["-2147483648…-1610612737", name[:14]]
    assert lines[-1] == f"lane 7 publishes nothing: {fault}"


async def test_status_without_relays_prints_a_line(database: Database, relay: Relay) -> None:
    assert "no relay is running" in (await relay("status")).stdout


async def test_status_names_settings_that_prevent_a_relay_start(relay: Relay) -> None:
    shown = await relay("status", OUTBOX_ROUTES="no route")
    assert shown.exit_code == 0
    assert "no relay is running" in shown.stdout
    assert "does not start with these settings: OUTBOX_ROUTES: 'no route' is " in shown.stderr


def test_watch_prints_the_rate_and_ends_with_ctrl_c(variables: dict[str, str]) -> None:
    arguments = [*RELAYBOX, "relay", "status", "--watch", "--interval-s", "0.2", "--json"]
    with subprocess.Popen(arguments, env=os.environ | variables, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0
    assert (first["published_per_s"], second["published_per_s"]) == (None, 0)


async def test_watch_of_a_database_without_schema_names_the_remedy(relay: Relay) -> None:
    result = await relay("status", "--watch", POSTGRES_DB="postgres")
    assert result.exit_code == 1
    assert "run relaybox migrate up, or check POSTGRES_DB" in result.output
    assert "Traceback" not in result.output


@pytest.mark.guarantee("G32")
async def test_request_for_lanes_is_recorded(database: Database, relay: Relay) -> None:
    grown = await relay("lanes", "16", "--by", "ann", "--reason", "more relays")
    assert grown.stdout.startswith("requested 16 lanes instead of 8")
    assert (await relay("lanes", "16")).stdout == "16 lanes are requested already\n"
    assert "8 lanes of 16 requested" in (await relay("status")).stdout
    [act] = await operator_acts(database)
    assert (act["actor"], act["act"], act["reason"]) == ("ann", "lanes", "more relays")
    for wrong in ("8", "24"):
        refused = await relay("lanes", wrong)
        assert refused.exit_code == 1
        assert len(refused.stderr.splitlines()) == 1
    assert (await relay("lanes", "2048")).exit_code == 2


@pytest.mark.guarantee("G32")
async def test_accepted_marker_is_recorded(database: Database, relay: Relay) -> None:
    marker = str(uuid.uuid4())
    async with database.connection() as connection:
        await connection.fetch(
            "UPDATE relay_lanes SET fault = $1 WHERE lane = 3", f"marker {marker} is unknown"
        )
    arguments = ("--marker", marker, "--by", "ann")
    assert (await relay("accept", "3", *arguments)).exit_code == 2
    other = await relay("accept", "3", "--marker", str(uuid.uuid4()), "--reason", "restored")
    assert other.exit_code == 1
    assert other.stderr.startswith("error: the fault of lane 3 names another marker")
    done = await relay("accept", "3", *arguments, "--reason", "restored")
    assert done.stdout == f"lane 3 continues after marker {marker}\n"
    [act] = await operator_acts(database)
    assert (act["actor"], act["act"], act["reason"]) == ("ann", "accept", "restored")
