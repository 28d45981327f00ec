"""Kafka and PostgreSQL unavailable or read-only under load: no service needs a restart."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from backend.migrations import ALL
from relaybox.db import migrate_up
from relaybox.local import LocalKafka
from relaybox.settings import KafkaSettings
from relaybox.testing import run_in_own_loop
from relaybox.topics import ensure_topics

from tests.fixtures.api_commands import SESSIONS, request_concepts, send_command, wait_until_idle
from tests.fixtures.failover import DatabasePair
from tests.fixtures.outages import read_only, stopped
from tests.fixtures.pgn import PGN, games
from tests.fixtures.service_processes import AGENT, API, RELAY, WORKER, ServiceProcesses
from tests.fixtures.system_under_test import TOPIC, SystemUnderTest
from tests.fixtures.waiting import eventually

WRITERS = 8
#: The pause of each writer between two commands: about 100 commands/s from all of them.
PACE_S = 0.08
#: The same pause for new sessions with a request to the agent.
BEGIN_S = 0.25
POSTGRES_AWAY_S = 2
WorldOfAPair = tuple[SystemUnderTest, DatabasePair]


@pytest.fixture
def world_of_a_pair(
    system: SystemUnderTest, pair: DatabasePair, kafka_server: LocalKafka, server_dir: Path
) -> Iterator[WorldOfAPair]:
    """Create a product behind the address of a primary with a standby, without running services."""
    # Its agent is in the same consumer group and would receive this product's events.
    system.services.kill_all()
    settings = pair.database.settings
    kafka = KafkaSettings(host=kafka_server.host, port=kafka_server.port)
    run_in_own_loop(migrate_up(settings.model_copy(update={"port": pair.primary.port}), *ALL))
    run_in_own_loop(ensure_topics(kafka, [TOPIC]))
    services = ServiceProcesses(
        settings, kafka, server_dir, TASK_POLL_S="0.2", RELAY_LEASE_S="1", RELAY_POLL_INTERVAL="1"
    )
    yield SystemUnderTest(pair.primary, kafka_server, settings, services), pair
    services.kill_all()


@pytest.mark.guarantee("G85")
@pytest.mark.parametrize(
    "outage_s", [6, pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
async def test_commands_under_a_kafka_outage_are_accepted_and_published(
    system: SystemUnderTest, outage_s: float
) -> None:
    await system.services.ensure_running(API, RELAY, AGENT)
    services = system.services.running()
    async with system.client() as client:
        sessions = [await proposed(client) for _ in range(WRITERS)]
        async with under_load(client, sessions) as accepted:
            async with stopped(system.kafka):
                before = len(accepted)
                over = asyncio.create_task(asyncio.sleep(outage_s))
                await eventually("a degraded API", lambda: readiness(client, "degraded"))
                await over
                assert await readiness(client, "degraded")
                assert len(accepted) - before > WRITERS * outage_s, "there was no load"
            await eventually("a healthy API", lambda: readiness(client, "ok"))
    await system.check_consistency()
    assert system.services.running() == services
    assert {sent.status for sent in system.sent.commands} <= {200, 202}


@pytest.mark.guarantee("G85")
async def test_postgresql_outage_gives_503_and_recovers_without_restart(
    system: SystemUnderTest,
) -> None:
    """Acknowledged commands are recorded; commands with a 503 at most once."""
    await system.services.ensure_running(API, RELAY, AGENT)
    services = system.services.running()
    async with system.client() as client:
        sessions = [await proposed(client) for _ in range(WRITERS)]
        async with under_load(client, sessions, refused=503):
            async with stopped(system.postgres):
                for name in services:
                    await eventually(
                        f"{name} not ready", lambda name=name: unready(system.services.url(name))
                    )
                await asyncio.sleep(POSTGRES_AWAY_S)
                refused = await send_command(client, sessions[0], "SubmitFeedback", feedback="no")
                assert (refused.status_code, refused.json()["error_code"]) == (503, "DATABASE_UNAVAILABLE")
                assert int(refused.headers["retry-after"]) >= 1
            await eventually("a healthy API", lambda: readiness(client, "ok"))
    await system.run_story()
    await system.check_consistency()
    assert system.services.running() == services
    assert {sent.status for sent in system.sent.commands} == {200, 202, 503, 409}


@pytest.mark.guarantee("G35")
@pytest.mark.parametrize("outage", ["read-only", "standby"])
@pytest.mark.parametrize(
    "outage_s", [0, pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
async def test_read_only_server_gives_503_and_recovers_without_restart(
    world_of_a_pair: WorldOfAPair, outage: str, outage_s: float
) -> None:
    """*outage_s* counts from the time when each service has noticed the outage."""
    system, pair = world_of_a_pair
    await system.services.ensure_running(API, RELAY, AGENT, WORKER)
    services = system.services.running()
    async with system.client() as client:
        sessions = [await proposed(client) for _ in range(WRITERS)]
        async with under_load(client, sessions, refused=503):
            async with read_only(pair.primary) if outage == "read-only" else demoted(pair):
                for name in services:
                    await eventually(
                        f"{name} not ready", lambda name=name: unready(system.services.url(name))
                    )
                await asyncio.sleep(outage_s)
                refused = await send_command(client, sessions[0], "SubmitFeedback", feedback="no")
                assert (refused.status_code, refused.json()["error_code"]) == (503, "DATABASE_UNAVAILABLE")
                assert int(refused.headers["retry-after"]) >= 1
            for name in services:
                await eventually(f"{name} ready", lambda name=name: ready(system.services.url(name)))
        await system.run_story()
        await system.check_consistency()
        await import_games(client)
    assert system.services.running() == services
    assert {sent.status for sent in system.sent.commands} <= {200, 202, 503, 409}


@asynccontextmanager
async def demoted(pair: DatabasePair) -> AsyncGenerator[None]:
    """Redirect the address to the standby within the block."""
    pair.address.redirect(pair.standby.port)
    yield
    pair.address.redirect(pair.primary.port)


async def import_games(client: httpx.AsyncClient) -> None:
    """Import a file that the worker processes."""
    headers = {"Content-Type": PGN}
    answer = await client.post("/api/v1/studies/import-pgn?title=after", content=games(300), headers=headers)
    assert answer.status_code == 202, answer.text

    async def look() -> bool:
        state = (await client.get(answer.headers["location"])).json()
        assert state["status"] not in {"FAILED", "CANCELLED"}, state
        return bool(state["result"])

    await eventually("the end of the import", look)


@asynccontextmanager
async def under_load(
    client: httpx.AsyncClient, sessions: list[str], *, refused: int = 200
) -> AsyncGenerator[list[int]]:
    """Writers send feedback, one asks for concepts in new sessions; yields what has been accepted so far.

    *refused* is the one other status that is not a failure of the test.
    """
    accepted: list[int] = []
    over = asyncio.Event()

    async def write(session: str) -> None:
        while not over.is_set():
            answer = await send_command(client, session, "SubmitFeedback", feedback="darker", rating=2)
            keep(answer)
            await asyncio.sleep(PACE_S)

    async def begin() -> None:
        while not over.is_set():
            answer = await client.post(SESSIONS, json={})
            if keep(answer):
                keep(await send_command(client, answer.json()["session_id"], "RequestConceptGeneration"))
            await asyncio.sleep(BEGIN_S)

    def keep(answer: httpx.Response) -> bool:
        assert answer.is_success or answer.status_code == refused, answer.text
        if answer.is_success:
            accepted.append(answer.status_code)
        return answer.is_success

    async with asyncio.TaskGroup() as load:
        for session in sessions:
            load.create_task(write(session))
        load.create_task(begin())
        yield accepted
        over.set()


async def unready(url: str) -> bool:
    """Return whether the service at *url* is unready."""
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        return (await client.get("/readyz")).status_code == 503


async def ready(url: str) -> bool:
    """Return whether the service at *url* is ready."""
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        return (await client.get("/readyz")).status_code == 200


async def readiness(client: httpx.AsyncClient, status: str) -> bool:
    """Return whether /readyz returns *status*; the API stays at 200 without Kafka."""
    answer = await client.get("/readyz")
    assert answer.status_code == 200 or status == "ok", answer.text
    return answer.json()["status"] == status


async def proposed(client: httpx.AsyncClient) -> str:
    """Create a session with concepts."""
    session, _ = await request_concepts(client)
    await wait_until_idle(client, session)
    return session
