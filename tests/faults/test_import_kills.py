"""API and worker killed at random times of an import: a repeated request gives one set of studies."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2 as httpx
import pytest

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.pgn import games
from tests.fixtures.service_processes import API, WORKER
from tests.fixtures.system_under_test import SystemUnderTest
from tests.fixtures.waiting import eventually

CHAPTERS_MAX = 64
#: A game of usual length, so that reading takes its usual share of the time.
MOVES = " ".join(("Nf3", "Nf6", "Ng1", "Ng8")[ply % 4] for ply in range(80)) + " *"
TIMES = [2, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(5_400)])]
SEED = 6
TREE = """
    WITH RECURSIVE below AS (
        SELECT id, kind::text, title, parent_id FROM workspace_nodes WHERE title = $1 AND parent_id IS NULL
        UNION ALL
        SELECT node.id, node.kind::text, node.title, node.parent_id
        FROM below JOIN workspace_nodes AS node ON node.parent_id = below.id
    )
    SELECT below.*, (SELECT count(*) FROM workspace_chapters WHERE node_id = below.id) AS chapters,
        (SELECT stream_version FROM workspace_nodes WHERE id = below.id) AS version
    FROM below ORDER BY parent_id NULLS FIRST, (SELECT position FROM workspace_nodes WHERE id = below.id)
"""
EVENTS = """
    WITH sent AS (
        SELECT payload ->> 'event_id' AS event_id, count(*) AS messages
        FROM event_outbox WHERE payload ->> 'aggregate_id' = ANY ($1::text[]) GROUP BY 1
    )
    SELECT event.event_id, event_type, aggregate_id, aggregate_version AS version, causation_id,
        correlation_id, coalesce(messages, 0) AS messages
    FROM domain_events AS event LEFT JOIN sent ON sent.event_id = event.event_id::text
    WHERE aggregate_id = ANY ($1::text[]) ORDER BY id
"""
#: Chapters without a node, nodes without a parent, events without a node, and pending commands.
LOOSE = """
    SELECT (SELECT count(*) FROM workspace_chapters AS one
            WHERE NOT EXISTS (SELECT FROM workspace_nodes AS node WHERE node.id = one.node_id))
        + (SELECT count(*) FROM workspace_nodes AS one WHERE one.parent_id IS NOT NULL
            AND NOT EXISTS (SELECT FROM workspace_nodes AS node WHERE node.id = one.parent_id))
        + (SELECT count(*) FROM domain_events AS one WHERE one.aggregate_type = 'WORKSPACE_NODE'
            AND NOT EXISTS (SELECT FROM workspace_nodes AS node WHERE node.id::text = one.aggregate_id))
        + (SELECT count(*) FROM command_inbox WHERE status IN ('RECEIVED', 'PROCESSING'))
"""
COMMANDS = "SELECT count(*) FROM command_inbox WHERE idempotency_key = $1"


@dataclass(frozen=True, kw_only=True)
class Import:
    """An import that is sent with one key until its response is known."""

    client: httpx.AsyncClient
    games: int
    title: str

    async def send(self) -> httpx.Response:
        """Send the import once."""
        headers = {"Content-Type": "application/x-chess-pgn", "Idempotency-Key": self.title}
        path = f"/api/v1/studies/import-pgn?title={self.title}"
        return await self.client.post(path, content=FILES[self.games], headers=headers)

    async def answered(self) -> httpx.Response:
        """Repeat the import until a response; a connection of the killed process may still hold the key."""

        async def look() -> httpx.Response | None:
            answer = await self.send()
            if answer.status_code == 409:
                assert answer.json()["error_code"] == "REQUEST_IN_FLIGHT", answer.text
                return None
            return answer

        return await eventually("an answer", look)

    async def report(self, answer: httpx.Response) -> Any:
        """Return the result of the import."""
        if answer.status_code == 201:
            return answer.json()
        assert answer.status_code == 202, answer.text

        async def look() -> Any:
            state = (await self.client.get(answer.headers["location"])).json()
            assert state["status"] not in {"FAILED", "CANCELLED"}, state
            return state["result"]

        return await eventually("the end of the task", look)


FILES = {count: games(count).replace("1. e4 e5 2. Nf3 *", MOVES).encode() for count in (150, 500)}


@asynccontextmanager
async def writer(system: SystemUnderTest) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=system.services.url(API),
        headers={"Authorization": f"Bearer {system.services.token()}"},
        timeout=WAIT_S,
        trust_env=False,
    ) as client:
        yield client


@pytest.mark.parametrize("times", TIMES)
async def test_api_killed_in_an_import_is_atomic_and_its_key_imports_once(
    system: SystemUnderTest, times: int, record_property: Any
) -> None:
    chance, there = random.Random(SEED), 0
    await system.services.ensure_running(API)
    async with system.superuser() as connection, writer(system) as client:
        whole_s = await undisturbed(client, connection, 150)
        for _ in range(times):
            one = Import(client=client, games=150, title=uuid4().hex)
            await killed(system, one, API, chance.uniform(0, 1.1 * whole_s))
            sets = await connection.fetchval(COMMANDS, one.title)
            await system.services.ensure_running(API)
            again = await one.answered()
            assert ("idempotent-replayed" in again.headers) == bool(sets)
            there += sets
            await check(connection, one, await one.report(again))
    record_property("kills", f"{times}, of which {there} came after the commit")


@pytest.mark.parametrize("times", TIMES)
async def test_worker_killed_in_an_import_leaves_nothing_and_is_replaced(
    system: SystemUnderTest, times: int, record_property: Any
) -> None:
    chance, taken_over = random.Random(SEED), 0
    await system.services.ensure_running(API, WORKER)
    async with system.superuser() as connection, writer(system) as client:
        whole_s = await undisturbed(client, connection, 500)
        for number in range(times):
            one = Import(client=client, games=500, title=uuid4().hex)
            # Some rounds kill the API, before or after it accepted the file.
            victim = API if number % 4 == 3 else WORKER
            await killed(system, one, victim, chance.uniform(0, 1.1 * whole_s))
            await system.services.ensure_running(API, WORKER)
            again = await one.answered()
            report = await one.report(again)
            assert (await one.answered()).content == again.content
            await check(connection, one, report)
            taken_over += await connection.fetchval(
                "SELECT count(*) FROM async_tasks WHERE id = $1 AND attempts > 1", again.json()["task_id"]
            )
    record_property("kills", f"{times}, of which {taken_over} left a task to a successor")


async def undisturbed(client: httpx.AsyncClient, connection: asyncpg.Connection, games: int) -> float:
    """Return the duration of an undisturbed import in seconds."""
    one = Import(client=client, games=games, title=uuid4().hex)
    began = time.perf_counter()
    report = await one.report(await one.answered())
    took_s = time.perf_counter() - began
    await check(connection, one, report)
    return took_s


async def killed(system: SystemUnderTest, one: Import, victim: str, after_s: float) -> None:
    """Send the import and kill *victim* after a delay, whatever the state of the import."""
    sending = asyncio.create_task(one.send())
    await asyncio.sleep(after_s)
    system.services.kill(victim)
    await asyncio.gather(sending, return_exceptions=True)


async def check(connection: asyncpg.Connection, one: Import, report: Any) -> None:
    """Assert one complete set of studies, nothing else, and one chain of published events."""
    folder, *studies = await connection.fetch(TREE, one.title)
    sizes = [min(CHAPTERS_MAX, one.games - start) for start in range(0, one.games, CHAPTERS_MAX)]
    assert (folder["kind"], [study["chapters"] for study in studies]) == ("folder", sizes)
    assert report["folder_id"] == str(folder["id"])
    assert [study["id"] for study in report["studies"]] == [str(study["id"]) for study in studies]
    events = await connection.fetch(EVENTS, [str(node["id"]) for node in (folder, *studies)])
    assert len({event["correlation_id"] for event in events}) == 1
    assert {event["messages"] for event in events} == {1}
    [created] = [event for event in events if event["aggregate_id"] == str(folder["id"])]
    assert (created["event_type"], created["causation_id"]) == ("node.created", None)
    for study in studies:
        chain = [event for event in events if event["aggregate_id"] == str(study["id"])]
        assert [event["version"] for event in chain] == list(range(1, study["version"] + 1))
        check_chain(chain, created["event_id"], study["chapters"])
    assert await connection.fetchval(LOOSE) == 0
    assert await connection.fetchval(COMMANDS, one.title) == 1


def check_chain(chain: Sequence[Any], cause: Any, chapters: int) -> None:
    """Assert study.created, study.pgn_imported and a study.chapter.created per game, by causation."""
    first, told, *others = chain
    assert (first["event_type"], first["causation_id"]) == ("study.created", cause)
    assert (told["event_type"], told["causation_id"]) == ("study.pgn_imported", first["event_id"])
    assert len(others) == chapters
    assert {event["event_type"] for event in others} == {"study.chapter.created"}
    assert {event["causation_id"] for event in others} == {told["event_id"]}
