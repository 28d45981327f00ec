"""``relaybox task`` on a real PostgreSQL."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from relaybox.cli import app
from relaybox.db import Database
from relaybox.settings import KafkaSettings, PostgresSettings
from typer.testing import CliRunner, Result

from tests.fixtures.flow_runs import fail_flow, order_flow, run_flows, start
from tests.fixtures.outbox_rows import operator_acts
from tests.fixtures.processes import command_environment
from tests.fixtures.task_rows import add_task, task_row

Command = Callable[..., Awaitable[Result]]


@pytest.fixture
def relaybox(postgres_settings: PostgresSettings, kafka_settings: KafkaSettings) -> Command:
    variables = command_environment(postgres_settings, kafka_settings) | {
        "COLUMNS": "220",
        "LOGNAME": "night-shift",
    }

    async def run(*arguments: str) -> Result:
        # In a thread, because a command runs its own event loop.
        return await asyncio.to_thread(CliRunner().invoke, app, [*arguments], env=variables)

    return run


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def test_task_commands_list_and_show_without_input(database: Database, relaybox: Command) -> None:
    assert (await relaybox("task", "list")).stdout == "no task matches\n"
    task_id = await add_task(database)
    head, row = (await relaybox("task", "list")).stdout.splitlines()
    assert head.split() == ["id", "type", "status", "command", "attempts", "age", "error"]
    assert row.split()[:5] == [str(task_id), "compose_proposal", "PENDING", "PROCESSING", "0"]
    found = parsed(await relaybox("task", "list", "--type", "compose_proposal", "--limit", "1", "--json"))
    assert [one["id"] for one in found] == [str(task_id)]
    assert "seed" not in (await relaybox("task", "show", str(task_id))).stdout
    assert "seed" in (await relaybox("task", "show", str(task_id), "--payload")).stdout
    unknown = await relaybox("task", "show", str(uuid4()))
    assert (unknown.exit_code, unknown.stderr.count("\n")) == (1, 1)


@pytest.mark.guarantee("G43")
async def test_task_cancel_command_names_the_open_command(database: Database, relaybox: Command) -> None:
    task_id = await add_task(database)
    arguments = ("task", "cancel", str(task_id), "--reason", "stuck")
    assert "dry run: the task would be cancelled; add --yes" in (await relaybox(*arguments)).stdout
    assert (await task_row(database, task_id))["status"] == "PENDING"
    done = (await relaybox(*arguments, "--yes")).stdout
    assert "stays PROCESSING; the application must end the command" in done
    assert (await task_row(database, task_id))["status"] == "CANCELLED"
    again = await relaybox(*arguments, "--yes")
    assert (again.exit_code, again.stderr.count("\n")) == (1, 1)
    assert (await relaybox("task", "cancel", str(task_id), "--reason", " ")).exit_code == 2


@pytest.mark.guarantee("G43")
async def test_task_retry_command_previews_then_retries(database: Database, relaybox: Command) -> None:
    flow_id = await start(database, order_flow)
    await run_flows(database)
    await fail_flow(database, flow_id)
    refused = await relaybox("task", "retry", "--yes")
    assert (refused.exit_code, "no tasks are selected" in refused.stderr) == (1, True)
    preview = (await relaybox("task", "retry", "--all")).stdout
    assert "dry run: 1 would be retried; add --yes to do it" in preview
    assert await operator_acts(database) == []
    arguments = ("task", "retry", "--id", str(flow_id), "--yes", "--reason", "repaired", "--json")
    done = parsed(await relaybox(*arguments))
    assert done == {"act": "retry", "done": True, "tasks_total": 1, "refused_total": 0}
    assert f'"tasks":["{flow_id}"]' in (await relaybox("outbox", "acts")).stdout
    assert (
        await relaybox("task", "retry", "--all", "--yes")
    ).stdout == "no task matches; nothing was changed\n"
