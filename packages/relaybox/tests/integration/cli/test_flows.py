"""``relaybox flow`` on a real PostgreSQL."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from relaybox.cli import app
from relaybox.db import Database
from relaybox.flows import flow_workers, park_flow, pause
from relaybox.settings import KafkaSettings, PostgresSettings, TaskSettings
from relaybox.tasks import TaskRunner, TaskSignal
from typer.testing import CliRunner, Result

from tests.fixtures.flow_runs import HOUR, order_flow, run_flows, start
from tests.fixtures.outbox_rows import operator_acts
from tests.fixtures.processes import command_environment
from tests.fixtures.signal_recorder import SignalRecorder

Command = Callable[..., Awaitable[Result]]


@pytest.fixture
def flows(postgres_settings: PostgresSettings, kafka_settings: KafkaSettings) -> Command:
    variables = command_environment(postgres_settings, kafka_settings) | {
        "COLUMNS": "220",
        "LOGNAME": "night-shift",
    }

    async def run(*arguments: str, group: str = "flow", **more: str) -> Result:
        # In a thread, because a command runs its own event loop.
        return await asyncio.to_thread(CliRunner().invoke, app, [group, *arguments], env=variables | more)

    return run


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def test_flow_commands_list_and_show_without_results(database: Database, flows: Command) -> None:
    assert (await flows("list")).stdout == "no flow matches\n"
    flow_id = await start(database, order_flow, secret="秘密")
    await run_flows(database)
    await database.run_in_transaction(
        lambda db: pause(db, "prefect-1", resume_handle={"run": "秘密"}, expires_in=HOUR)
    )
    printed = (await flows("list")).stdout
    head, row, _, title, _, other = printed.splitlines()
    assert head.split() == [
        "id",
        "name",
        "version",
        "status",
        "waits",
        "for",
        "until",
        "steps",
        "age",
        "error",
    ]
    assert row.split()[:5] == [str(flow_id), "Test.Order", "2", "PENDING", f"{flow_id}/approval"]
    assert (title, other.split()[:2]) == ("pauses of other engines:", ["prefect-1", "PENDING_PAUSE"])
    assert "only the first 1 of a kind" in (await flows("list", "--limit", "1")).stdout
    found = parsed(await flows("list", "--name", "Test.Order", "--status", "PENDING", "--waiting", "--json"))
    assert ([one["id"] for one in found["flows"]], found["pauses"]) == ([str(flow_id)], [])

    shown = (await flows("show", str(flow_id))).stdout
    assert re.search(r"^step 1 +reserve: done 20", shown, re.MULTILINE)
    assert re.search(
        r"^wait +approval: PAUSED, for a resume; began 20.*; until 20.*, in ", shown, re.MULTILINE
    )
    assert "秘密" not in shown
    assert "秘密" in (await flows("show", str(flow_id), "--payload")).stdout
    assert parsed(await flows("show", str(flow_id), "--json"))["input_data"] is None
    unknown = await flows("show", str(uuid4()))
    assert (unknown.exit_code, unknown.stderr.count("\n")) == (1, 1)


@pytest.mark.guarantee("G44")
async def test_flow_resume_command_previews_then_resumes(database: Database, flows: Command) -> None:
    flow_id = await start(database, order_flow)
    await run_flows(database)
    arguments = ("resume", f"{flow_id}/approval", "--payload", '{"approved": true}')
    assert "dry run: the pause would be resumed; add --yes" in (await flows(*arguments)).stdout
    assert await operator_acts(database) == []
    done = await flows(*arguments, "--yes", "--reason", "checked")
    assert done.stdout == f"resumed {flow_id}/approval\n"
    again = await flows(*arguments, "--yes")
    assert (again.exit_code, again.stderr.count("\n")) == (1, 1)
    assert [(act["actor"], act["act"], act["reason"]) for act in await operator_acts(database)] == [
        ("night-shift", "resume", "checked")
    ]
    for wrong in ("{", "[1]"):
        assert (await flows("resume", "a", "--payload", wrong)).exit_code == 2
    assert "would be kept for 24 hours" in (await flows("resume", "a", "--payload", "{}")).stdout
    assert "resume of a kept until" in (await flows("resume", "a", "--payload", "{}", "--yes")).stdout


@pytest.mark.guarantee("G44")
async def test_flow_cancel_command_previews_then_cancels(database: Database, flows: Command) -> None:
    flow_id = await start(database, order_flow)
    await run_flows(database)
    arguments = ("cancel", str(flow_id), "--reason", "customer left")
    assert "dry run: the flow would be cancelled; add --yes" in (await flows(*arguments)).stdout
    assert parsed(await flows(*arguments, "--json"))["flow"]["status"] == "PENDING"
    done = parsed(await flows(*arguments, "--yes", "--by", "ann", "--json"))
    assert done == {
        "act": "cancel",
        "done": True,
        "flow_id": str(flow_id),
        "correlation_id": f"{flow_id}/approval",
    }
    again = await flows(*arguments)
    assert (again.exit_code, again.stderr.count("\n")) == (1, 1)
    assert (await flows("cancel", str(flow_id), "--reason", " ")).exit_code == 2
    assert (await flows("cancel", str(flow_id))).exit_code == 2


#: Less than the interval at which the runner of ``signals`` polls.
NOTIFIED_S = 30.0


@pytest.fixture
async def signals(database: Database) -> AsyncIterator[SignalRecorder]:
    """Run flows in a runner that polls once in a minute."""
    recorder = SignalRecorder()
    runner = TaskRunner(
        database,
        flow_workers(database, [order_flow]),
        on_exhausted=partial(park_flow, database),
        settings=TaskSettings(poll_s=60),
        listens=True,
        on_signal=recorder,
    )
    running = asyncio.create_task(runner.run())
    await recorder.wait_for(TaskSignal.IDLE, 2)  # at its start, and when it listens
    yield recorder
    runner.stop()
    await running


@pytest.mark.parametrize("action", ["resume", "retry"])
async def test_operators_command_notifies_runners(
    database: Database, flows: Command, signals: SignalRecorder, action: str
) -> None:
    flow_id = await start(database, order_flow)
    await run_flows(database)
    claimed = signals.wait_for_next(TaskSignal.CLAIMED)
    if action == "resume":
        parsed(await flows("resume", f"{flow_id}/approval", "--payload", "{}", "--yes", "--json"))
    else:
        async with database.connection() as connection:
            await connection.fetch("UPDATE async_tasks SET status = 'FAILED', not_before = NULL")
        parsed(await flows("retry", "--id", str(flow_id), "--yes", "--json", group="task"))
    async with asyncio.timeout(NOTIFIED_S):
        await claimed
