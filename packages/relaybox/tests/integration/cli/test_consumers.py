"""``relaybox consumer status`` and ``lag`` on a real Kafka and PostgreSQL."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from relaybox.cli import app
from relaybox.db import Database
from relaybox.local import free_port
from relaybox.settings import KafkaSettings, PostgresSettings
from typer.testing import CliRunner, Result

from tests.fixtures.groups import commit_offsets, produce_aged
from tests.fixtures.letters import park_letters
from tests.fixtures.processes import command_environment

Command = Callable[..., Awaitable[Result]]


@pytest.fixture
def run_consumer(postgres_settings: PostgresSettings, kafka_settings: KafkaSettings) -> Command:
    variables = command_environment(postgres_settings, kafka_settings) | {"COLUMNS": "220"}

    async def run(*arguments: str, **more: str) -> Result:
        # In a thread, because a command runs its own event loop.
        program = ["consumer", *arguments]
        return await asyncio.to_thread(CliRunner().invoke, app, program, env=variables | more)

    return run


@pytest.fixture
def group(kafka_settings: KafkaSettings, topic: str) -> str:
    """A group without members that has not read two messages of partition 0."""
    name = f"group-{topic}"
    produce_aged(kafka_settings, topic, 0, [900, 600, 300])
    commit_offsets(kafka_settings, name, topic, {0: 1})
    return name


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def test_lag_command_prints_a_line_per_partition(run_consumer: Command, topic: str, group: str) -> None:
    printed = (await run_consumer("lag", group)).stdout.splitlines()
    head, first, *_, last = [line.split() for line in printed]
    assert head == ["topic", "partition", "committed", "end", "messages", "seconds", "member"]
    assert first[:5] == [topic, "0", "1", "3", "2"]
    assert float(first[5]) > 599
    assert len(printed) == 6
    assert " ".join(last).startswith("EMPTY: messages that wait: 2, the oldest for 10 m")
    found = parsed(await run_consumer("lag", group, "--json"))
    assert (found["messages"], found["partitions_total"]) == (2, 4)
    assert [each["messages"] for each in found["partitions"]] == [2, 0, 0, 0]


async def test_lag_command_works_without_postgresql(run_consumer: Command, group: str) -> None:
    away = {"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": str(free_port())}
    assert (await run_consumer("lag", group, **away)).exit_code == 0


async def test_status_command_tells_what_to_do(database: Database, run_consumer: Command, group: str) -> None:
    await park_letters(database, "a", count=2, group=group)
    printed = (await run_consumer("status", group)).stdout
    assert f"group {group}: EMPTY, 0 members, 4 partitions, messages that wait: 2" in printed
    assert "2 dead letters, 1 keys blocked" in printed
    assert "\nCONSUMER_STOPPED: no consumer of the group is running; messages that wait: 2\n" in printed
    assert f"`relaybox dead-letters list --group {group}`" in printed
    found = parsed(await run_consumer("status", group, "--json"))
    assert [fault["code"] for fault in found["faults"]] == ["CONSUMER_STOPPED", "DEAD_LETTERS"]


async def test_status_command_without_a_group_lists_all(
    database: Database, run_consumer: Command, group: str
) -> None:
    assert (await run_consumer("status")).stdout.startswith("no group has consumed an event")
    assert parsed(await run_consumer("status", "--json")) == []
    await park_letters(database, "a", group=group)
    head, row, hint = (await run_consumer("status")).stdout.splitlines()
    assert head.split()[:4] == ["group", "state", "members", "partitions"]
    assert row.split()[:5] == [group, "EMPTY", "0", "4", "2"]
    assert row.endswith("CONSUMER_STOPPED, DEAD_LETTERS")
    assert hint == "`relaybox consumer status GROUP` shows what to do"
    assert [each["group"] for each in parsed(await run_consumer("status", "--json"))] == [group]


@pytest.mark.parametrize("command", ["status", "lag"])
async def test_consumer_commands_print_errors_as_one_line(
    run_consumer: Command, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.operations._group_reader._RESPONSE_S", 1.0)
    unknown = await run_consumer(command, "no-such-group")
    away = await run_consumer(command, "any", KAFKA_HOST="127.0.0.1", KAFKA_PORT=str(free_port()))
    for result, text in (
        (unknown, "there is no consumer group 'no-such-group'"),
        (away, "Kafka cannot be reached at 127.0.0.1:"),
    ):
        assert result.exit_code == 1
        [line] = result.stderr.splitlines()
        assert line.startswith(f"error: {text}")
