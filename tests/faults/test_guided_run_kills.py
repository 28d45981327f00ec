"""SIGKILL of each service at every event of a guided run: the session gets the same events as without.

A run without kills records ``EVENTS``. For each of them a test kills each service while the statement that
records the event waits at a gate; others kill the agent at the statements of the flow's engine.
"""

import asyncio

import pytest
from backend.demo._guided import GuidedStory
from shared_types.genesis import GenesisStage

from tests.fixtures.gates import Gate, closed_gate
from tests.fixtures.guided_runs import whole_run
from tests.fixtures.service_processes import AGENT, API, RELAY, WORKER
from tests.fixtures.system_under_test import SystemUnderTest

EVENTS = whole_run(feedback=GenesisStage.CONCEPT_SELECTION)
#: Versions of the session at which the short form kills; the others belong to the long form.
SHORT = {
    API: {EVENTS.index("GuidedRunRequested") + 1, EVENTS.index("Finished") + 1},
    RELAY: {EVENTS.index("GuidedRunUpdated") + 1},
    AGENT: {EVENTS.index("GuidedRunCreated") + 1, EVENTS.index("GuidedRunFinished") + 1},
    WORKER: {EVENTS.index("StageConfirmed") + 1},
}
#: Statements of the flow's engine, in the order of a run.
ENGINE = {
    "the flow is started": Gate("INSERT", "async_tasks", "NEW.task_type LIKE 'genesis.guided-run%'"),
    "a step is recorded": Gate("INSERT", "flow_steps", "NEW.name = 'lead 2'"),
    "the wait begins": Gate("INSERT", "flow_waits", "NEW.correlation_id LIKE '%/decision 2'"),
    "the decision arrives": Gate("UPDATE", "flow_waits", "NEW.correlation_id LIKE '%/decision 2'"),
    "the flow is woken": Gate("UPDATE", "flow_resume_handles", "NEW.status = 'RESUMED'"),
    "the end of a wait is recorded": Gate("INSERT", "flow_steps", "NEW.name = 'decision 2'"),
}


def at_event(version: int) -> Gate:
    """Return the gate of the session's event number *version*."""
    return Gate(
        "INSERT",
        "domain_events",
        f"NEW.aggregate_type = 'GENESIS_SESSION' AND NEW.aggregate_version = {version}",
    )


def every_event(service: str) -> list[object]:
    return [
        pytest.param(
            version, id=f"{version}-{name}", marks=[] if version in SHORT[service] else pytest.mark.long
        )
        for version, name in enumerate(EVENTS, start=1)
    ]


async def lead_and_kill(system: SystemUnderTest, victim: str, gate: Gate, *, done: bool = False) -> None:
    """Lead a session by a guided run, kill *victim* at *gate*, restart it, and compare the events.

    With *done* the statement at the gate, which is the victim's, completes before the kill.
    """
    await system.services.ensure_running(API, RELAY, AGENT, WORKER)
    async with system.superuser() as connection, asyncio.TaskGroup() as story:
        async with closed_gate(connection, gate) as held:
            story.create_task(system.run_story(GuidedStory))
            if done:
                await system.kill_at_gate(victim, held, done=True)
            else:
                await held.wait_until_reached()
                system.services.kill(victim)
                await held.open()
        await system.services.start(victim)
    async with system.superuser() as connection:
        rows = await connection.fetch(
            "SELECT event_type FROM domain_events WHERE aggregate_id = (SELECT id::text FROM genesis_sessions"
            " ORDER BY created_at DESC LIMIT 1) ORDER BY aggregate_version"
        )
    assert [row["event_type"].rpartition(".")[2] for row in rows] == EVENTS
    await system.check_consistency()


@pytest.mark.guarantee("G44")
@pytest.mark.parametrize("version", every_event(API))
async def test_guided_run_completes_when_the_api_is_killed(system: SystemUnderTest, version: int) -> None:
    await lead_and_kill(system, API, at_event(version))


@pytest.mark.guarantee("G44")
@pytest.mark.parametrize("version", every_event(RELAY))
async def test_guided_run_completes_when_the_relay_is_killed(system: SystemUnderTest, version: int) -> None:
    await lead_and_kill(system, RELAY, at_event(version))


@pytest.mark.guarantee("G44")
@pytest.mark.parametrize("version", every_event(AGENT))
async def test_guided_run_completes_when_the_agent_is_killed(system: SystemUnderTest, version: int) -> None:
    await lead_and_kill(system, AGENT, at_event(version))


@pytest.mark.guarantee("G44")
@pytest.mark.parametrize("version", every_event(WORKER))
async def test_guided_run_completes_when_the_worker_is_killed(system: SystemUnderTest, version: int) -> None:
    await lead_and_kill(system, WORKER, at_event(version))


@pytest.mark.guarantee("G44")
@pytest.mark.parametrize("done", [False, True], ids=["undone", "done"])
@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=[] if one == "a step is recorded" else pytest.mark.long) for one in ENGINE],
)
async def test_guided_run_completes_when_its_flow_is_killed(
    system: SystemUnderTest, name: str, done: bool
) -> None:
    await lead_and_kill(system, AGENT, ENGINE[name], done=done)
