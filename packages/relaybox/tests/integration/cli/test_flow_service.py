"""``relaybox flow run`` on real servers."""

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families
from relaybox.db import Database
from relaybox.flows import FlowDefinition, start_flow
from relaybox.local import free_port
from relaybox.settings import KafkaSettings, PostgresSettings
from relaybox.tasks import fetch_task

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.events import REQUESTED, make_event, publish
from tests.fixtures.processes import command_environment
from tests.fixtures.waiting import eventually

PROGRAM = (sys.executable, "-c", "from relaybox.cli import app; app()", "flow", "run")
MODULE = f"""
from datetime import timedelta

from relaybox.flows import flow


@flow("Suite.Waiting", event_types=["{REQUESTED}"])
async def waiting(current, arguments):
    await current.wait_for("{REQUESTED}", arguments["key"], timeout=timedelta(hours=1))


async def undeclared(current, arguments):
    pass
"""


@pytest.fixture
def variables(postgres_settings: PostgresSettings, kafka_settings: KafkaSettings) -> dict[str, str]:
    health = {"HEALTH_PORT": str(free_port()), "TASK_POLL_S": "0.1"}
    return os.environ | command_environment(postgres_settings, kafka_settings) | health


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "work.py").write_text(MODULE, encoding="utf-8")
    return tmp_path


@pytest.fixture
def definition() -> FlowDefinition:
    names: dict[str, FlowDefinition] = {}
    exec(compile(MODULE, "work", "exec"), names)
    return names["waiting"]


def metrics_at(port: str) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        families = text_string_to_metric_families(response.read().decode())
        samples = [sample for family in families for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


@pytest.mark.guarantee("G44")
async def test_flow_service_runs_flows_and_exports_their_metrics(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    definition: FlowDefinition,
    variables: dict[str, str],
    directory: Path,
) -> None:
    key = str(uuid4())
    flow_id = await database.run_in_transaction(lambda db: start_flow(db, definition, {"key": key}))

    async def task() -> Any:
        async with database.connection() as connection:
            return await fetch_task(connection, flow_id)

    async def suspended() -> bool:
        found = await task()
        return found is not None and found.not_before is not None

    async def completed() -> bool:
        found = await task()
        return found is not None and found.status == "COMPLETED"

    async def measured() -> bool:
        found = metrics_at(variables["HEALTH_PORT"])
        return found["relaybox_flows", "Suite.Waiting", "waiting"] in (0, 1)

    program = [*PROGRAM, "work:waiting", "--topic", topic, "--group", topic]
    process = subprocess.Popen(  # noqa: ASYNC220 - starts at once
        program, cwd=directory, env=variables, stderr=subprocess.DEVNULL
    )
    try:
        await eventually("the flow waits", suspended)
        publish(kafka_settings, topic, [make_event(aggregate_id=key)])
        await eventually("the flow is done", completed)
        await eventually("the flows are measured", measured)
        found = metrics_at(variables["HEALTH_PORT"])
        exported = {name for name, *_ in found if name.startswith("relaybox_flows")}
        assert {name for name in exported if not name.endswith("_created")} == {
            "relaybox_flows",
            "relaybox_flows_expired_total",
            "relaybox_flows_oldest_wait_seconds",
            "relaybox_flows_steps_failed_total",
        }
        assert found["relaybox_tasks_attempts_total", "ended"] == 2
        assert found["relaybox_consumer_handled_total", topic] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
        process.wait(WAIT_S)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("work:undeclared", "work:undeclared is not declared with @flow; decorate the function"),
        ("work:missing", "work has no missing; write the name of a function declared with @flow"),
        ("elsewhere:waiting", "there is no module elsewhere; run the command in the directory"),
    ],
)
def test_name_that_is_not_a_flow_is_refused(
    name: str, message: str, variables: dict[str, str], directory: Path
) -> None:
    refused = subprocess.run(
        [*PROGRAM, name], cwd=directory, env=variables, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert message in refused.stderr
