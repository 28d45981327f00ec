"""Concurrent moves: they never create a cycle and never deadlock."""

import asyncio
import random
from typing import Any, Final

import httpx2 as httpx
import pytest
from relaybox.db import Database

from tests.fixtures.studio import Studio
from tests.fixtures.waiting import eventually

#: Attempts of one request that gets a 503 to retry.
_SENT_MAX: Final = 20

_REACHED = """
    WITH RECURSIVE below AS (
        SELECT id FROM workspace_nodes WHERE parent_id IS NULL
        UNION ALL
        SELECT child.id FROM below JOIN workspace_nodes AS child ON child.parent_id = below.id
    )
    SELECT count(*) AS reached, (SELECT count(*) FROM workspace_nodes) AS nodes FROM below
"""
_OTHERS = """
    SELECT count(*) AS backends FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
"""
_DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


async def told(studio: Studio, path: str, body: Any = None) -> httpx.Response:
    """Send a POST until the response is not a retryable error, a bounded number of times."""
    for _ in range(_SENT_MAX):
        answer = await studio.teacher.send("POST", path, body, match="*")
        if answer.status_code != 503:
            return answer
    raise AssertionError(f"{path}: 503 for {_SENT_MAX} times")


async def move(studio: Studio, node: Any, parent: Any) -> tuple[int, str]:
    """Move *node* below *parent* and return status and error code."""
    answer = await told(studio, f"/nodes/{node['id']}/move", {"parent_id": parent["id"]})
    return answer.status_code, "" if answer.is_success else answer.json()["error_code"]


async def race(studio: Studio, database: Database, *, rounds: int) -> None:
    """Move two or three folders in two trees concurrently, each into the next one or into a folder of it."""
    trees = [await studio.teacher.node("workspace") for _ in range(2)]
    folders = [await studio.teacher.node("folder", parent=tree) for tree in (trees[0], *trees)]
    inner = [await studio.teacher.node("folder", parent=folder) for folder in folders]
    for number in range(rounds):
        ring = [0, 1, 2] if number % 3 == 2 else [0, 1] if number % 2 else [0, 2]
        targets = inner if number % 5 == 4 else folders
        wanted = [*zip(ring, [*ring[1:], ring[0]], strict=True)]
        answers = await asyncio.gather(*(move(studio, folders[one], targets[to]) for one, to in wanted))
        assert sorted(answers).count((422, "TREE_CYCLE")) >= 1
        assert {status for status, _ in answers} == {200, 422}
        async with database.connection() as connection:
            [row] = await connection.fetch(_REACHED)
        assert row["reached"] == row["nodes"] == 8
        for (place, _), (status, _) in zip(wanted, answers, strict=True):
            if status == 200:
                assert await move(studio, folders[place], trees[place // 2]) == (200, "")


async def test_concurrent_moves_never_make_a_cycle(studio: Studio, database: Database) -> None:
    await race(studio, database, rounds=20)


@pytest.mark.long
async def test_concurrent_moves_never_make_a_cycle_in_500_rounds(studio: Studio, database: Database) -> None:
    await race(studio, database, rounds=500)


async def deadlocks(database: Database) -> int:
    """Return the number of deadlocks in the test's database; a backend reports its own when it ends."""
    await database.engine.dispose()
    async with database.connection() as connection:

        async def alone() -> bool:
            [row] = await connection.fetch(_OTHERS)
            return row["backends"] == 0

        await eventually("the end of the other backends", alone)
        [row] = await connection.fetch(_DEADLOCKS)
    return row["deadlocks"]


async def test_concurrent_moves_between_trees_do_not_deadlock(studio: Studio, database: Database) -> None:
    """Folders change trees and become or stop being roots, while other moves wait for the same rows."""
    trees = [await studio.teacher.node("workspace") for _ in range(2)]
    folders = [await studio.teacher.node("folder", parent=tree) for tree in trees for _ in range(5)]
    places = [one["id"] for one in (*trees, *folders)]
    dice = random.Random(5)
    for _ in range(5):
        asked = list[tuple[str, Any]]()
        for number in range(20):
            path = f"/nodes/{dice.choice(folders)['id']}"
            place = None if number % 5 == 4 else dice.choice(places)
            asked.append(
                (f"{path}/restore", None) if number % 4 == 3 else (f"{path}/move", {"parent_id": place})
            )
        answers = await asyncio.gather(*(told(studio, path, body) for path, body in asked))
        assert {answer.status_code for answer in answers} <= {200, 409, 422}
        async with database.connection() as connection:
            [row] = await connection.fetch(_REACHED)
        assert row["reached"] == row["nodes"] == len(places)
    assert await deadlocks(database) == 0
