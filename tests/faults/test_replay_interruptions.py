"""Operators who act on the same dead letters at once, and replays that are interrupted."""

import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from relaybox.consumers import ConsumerSignal
from relaybox.db import Database
from relaybox.settings import KafkaSettings, PostgresSettings

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.events import effects, make_effects_table, record_effect
from tests.fixtures.letters import (
    consuming,
    letter_rows,
    letter_statuses,
    park_letters,
    wait_for_lock_waits,
)
from tests.fixtures.outbox_rows import operator_acts
from tests.fixtures.processes import command_environment, python_process, server_environment
from tests.fixtures.waiting import eventually

_ROOT = Path(__file__).parents[2]
GROUP, STEP = "projection", 10
#: Kills of a consumer that replays one key, by the length of the test.
KILLS = [3, pytest.param(50, marks=[pytest.mark.long, pytest.mark.timeout(3_600)])]


class Scene:
    """Letters of one group, its operators and its consumers."""

    def __init__(
        self, database: Database, postgres: PostgresSettings, kafka: KafkaSettings, topic: str
    ) -> None:
        self.database, self.kafka, self.topic = database, kafka, topic
        # Commands wait for locks until the consumer has made progress.
        limit_ms = str(round(WAIT_S * 1_000))
        limits = {"POSTGRES_LOCK_TIMEOUT_MS": limit_ms, "POSTGRES_STATEMENT_TIMEOUT_MS": limit_ms}
        self._command = command_environment(postgres, kafka) | limits
        self._servers = server_environment(postgres, kafka)

    async def park(self, *, keys: int, letters: int) -> None:
        """Park *letters* messages of each of *keys* keys."""
        for number in range(keys):
            await park_letters(self.database, f"key {number}", count=letters, group=GROUP)
        async with self.database.connection() as connection:
            await connection.fetch("UPDATE dead_letters SET topic = $1", self.topic)

    async def operator(self, name: str, *arguments: str, killed_after: int = 0) -> dict[str, Any]:
        """Run ``relaybox dead-letters`` for all letters in steps of 10; return what it prints."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.fixtures.operator_process", str(STEP), str(killed_after)),
            *(*arguments, "--all", "--yes", "--json", "--by", name),
            cwd=_ROOT,
            env=self._command,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(process.communicate(), WAIT_S)
        assert process.returncode == (-signal.SIGKILL if killed_after else 0)
        return json.loads(output) if output else {}

    async def kill_consumer(self, point: str, occurrence: int) -> None:
        """Run a consumer process until it kills itself."""
        arguments = (GROUP, self.topic, point, str(occurrence), "repaired")
        module = "tests.fixtures.parking_process"
        async with python_process(module, *arguments, environment=self._servers) as process:
            assert await process.exit_code() == -signal.SIGKILL

    async def resolved(self) -> list[Mapping[str, Any]]:
        """Run a consumer until each letter is replayed or discarded; return the letters."""
        async with consuming(self.database, self.kafka, self.topic, GROUP, record_effect):
            return await self.wait_until_resolved()

    async def wait_until_resolved(self) -> list[Mapping[str, Any]]:
        async def resolved() -> bool:
            return {"REPLAYED", "DISCARDED"} >= set(await letter_statuses(self.database))

        await eventually("all letters resolved", resolved)
        return await letter_rows(self.database)

    async def check(self) -> None:
        """Check that each replayed letter has one effect, in the order of its key, and no other letter."""
        replayed = [row for row in await letter_rows(self.database) if row["status"] == "REPLAYED"]
        found = await effects(self.database)
        assert sorted(found) == sorted(row["event_id"] for row in replayed)
        for key in {row["message_key"] for row in replayed}:
            ids = [row["event_id"] for row in replayed if row["message_key"] == key]
            assert [one for one in found if one in ids] == ids

    async def acted(self) -> Mapping[str, list[int]]:
        """Return the ids of the letters that each operator changed, as the record of actions has them."""
        acted: dict[str, list[int]] = {}
        for act in await operator_acts(self.database):
            assert act["target"]["count"] == len(act["target"]["letters"])
            acted.setdefault(act["actor"], []).extend(one["id"] for one in act["target"]["letters"])
        return acted


@pytest.fixture
async def scene(
    database: Database, postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str
) -> Scene:
    await make_effects_table(postgres_settings)
    return Scene(database, postgres_settings, kafka_settings, topic)


@pytest.mark.guarantee("G42")
async def test_two_operators_replay_each_letter_once_in_order(
    scene: Scene, superuser: asyncpg.Connection
) -> None:
    await scene.park(keys=8, letters=10)
    async with consuming(scene.database, scene.kafka, scene.topic, GROUP, record_effect):
        async with asyncio.TaskGroup() as tasks, superuser.transaction():
            # Both commands wait for this lock: both have begun before one of them changes a letter.
            await superuser.execute("SELECT FROM dead_letters FOR UPDATE")
            running = {name: tasks.create_task(scene.operator(name, "replay")) for name in ("ann", "bob")}
            await wait_for_lock_waits(scene.database, 2)
        letters = await scene.wait_until_resolved()
    await scene.check()
    assert {row["status"] for row in letters} == {"REPLAYED"}
    acted = await scene.acted()
    changed = [letter_id for ids in acted.values() for letter_id in ids]
    assert len(changed) == len(set(changed))
    for name, task in running.items():
        ids = acted.get(name, [])
        assert task.result()["letters_total"] == len(ids)
        assert {row["resolved_by"] for row in letters if row["id"] in ids} <= {name}


@pytest.mark.guarantee("G42")
async def test_replay_and_discard_at_once_resolve_each_letter_once(
    scene: Scene, superuser: asyncpg.Connection
) -> None:
    await scene.park(keys=8, letters=10)
    async with consuming(scene.database, scene.kafka, scene.topic, GROUP, record_effect) as signals:
        async with asyncio.TaskGroup() as tasks, superuser.transaction():
            # The discard begins with the last letters and waits for this lock.
            await superuser.execute("SELECT FROM dead_letters ORDER BY id DESC LIMIT 1 FOR UPDATE")
            discard = tasks.create_task(scene.operator("bob", "discard", "--reason", "not needed"))
            await wait_for_lock_waits(scene.database, 1)
            replay = tasks.create_task(scene.operator("ann", "replay"))
            await signals.wait_for(ConsumerSignal.REPLAYED, STEP)
        letters = await scene.wait_until_resolved()
    await scene.check()
    acted = await scene.acted()
    discarded = [row["id"] for row in letters if row["status"] == "DISCARDED"]
    assert sorted(acted["bob"]) == discarded
    assert discarded[-STEP:] == [row["id"] for row in letters[-STEP:]]
    assert len(discarded) == discard.result()["letters_total"]
    assert len(acted["ann"]) == replay.result()["letters_total"]


@pytest.mark.guarantee("G42")
async def test_command_killed_between_its_steps_is_repeated(scene: Scene) -> None:
    await scene.park(keys=10, letters=5)
    await scene.operator("ann", "replay", killed_after=2)
    requested = [status == "REPLAY_REQUESTED" for status in await letter_statuses(scene.database)]
    assert sum(requested) == 2 * STEP
    assert (await scene.operator("bob", "replay"))["letters_total"] == 3 * STEP
    assert {name: len(ids) for name, ids in (await scene.acted()).items()} == {"ann": 20, "bob": 30}
    letters = await scene.resolved()
    await scene.check()
    assert [row["resolved_by"] for row in letters] == ["ann"] * 20 + ["bob"] * 30


@pytest.mark.guarantee("G42")
@pytest.mark.parametrize("kills", KILLS)
async def test_consumers_killed_within_a_long_key_replay_it_in_order(scene: Scene, kills: int) -> None:
    await scene.park(keys=1, letters=10 * kills + 10)
    await scene.operator("ann", "replay")
    points = ("claimed", "handled", ConsumerSignal.REPLAYED)
    for kill in range(kills):
        await scene.kill_consumer(points[kill % len(points)], 3 + kill % 7)
    assert "REPLAY_REQUESTED" in await letter_statuses(scene.database)
    await scene.resolved()
    await scene.check()


@pytest.mark.guarantee("G42")
async def test_long_key_moves_between_consumers_while_it_is_replayed(scene: Scene) -> None:
    """A second member joins, and the first one leaves, each within a letter."""
    await scene.park(keys=4, letters=50)
    async with AsyncExitStack() as second, AsyncExitStack() as first:
        start = (scene.database, scene.kafka, scene.topic, GROUP, record_effect)
        signals = await first.enter_async_context(consuming(*start))
        await scene.operator("ann", "replay")
        await signals.wait_for(ConsumerSignal.REPLAYED, 5)
        await second.enter_async_context(consuming(*start))
        await first.aclose()
        await scene.wait_until_resolved()
    await scene.check()
