"""Moves that race never make a cycle: of a ring of moves, one at the least is refused."""

import asyncio
from typing import Any

import pytest
from relaybox.db import Database

from tests.fixtures.studio import Studio

_REACHED = """
    WITH RECURSIVE below AS (
        SELECT id FROM workspace_nodes WHERE parent_id IS NULL
        UNION ALL
        SELECT child.id FROM below JOIN workspace_nodes AS child ON child.parent_id = below.id
    )
    SELECT count(*) AS reached, (SELECT count(*) FROM workspace_nodes) AS nodes FROM below
"""


async def move(studio: Studio, node: Any, parent: Any) -> tuple[int, str]:
    """Put *node* below *parent*; status and error code."""
    path = f"/nodes/{node['id']}/move"
    answer = await studio.teacher.send("POST", path, {"parent_id": parent["id"]}, match="*")
    return answer.status_code, "" if answer.is_success else answer.json()["error_code"]


async def race(studio: Studio, database: Database, *, rounds: int) -> None:
    """Two folders or three, in two trees, each moved at once into the next one, or into a folder of that."""
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


async def test_moves_into_each_other_never_make_a_cycle(studio: Studio, database: Database) -> None:
    await race(studio, database, rounds=20)


@pytest.mark.long
async def test_moves_into_each_other_never_make_a_cycle_in_500_rounds(
    studio: Studio, database: Database
) -> None:
    await race(studio, database, rounds=500)
