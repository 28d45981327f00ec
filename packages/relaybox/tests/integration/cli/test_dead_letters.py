"""``relaybox dead-letters`` on a real PostgreSQL."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from relaybox.cli import app
from relaybox.db import Database
from relaybox.settings import KafkaSettings, PostgresSettings
from typer.testing import CliRunner, Result

from tests.fixtures.letters import letter_rows, letter_statuses, park_letters
from tests.fixtures.outbox_rows import operator_acts
from tests.fixtures.processes import command_environment

Command = Callable[..., Awaitable[Result]]
KEY = "6c1f1c1e-0000-0000-0000-000000000000"


@pytest.fixture
def letters(postgres_settings: PostgresSettings, kafka_settings: KafkaSettings) -> Command:
    variables = command_environment(postgres_settings, kafka_settings) | {
        "COLUMNS": "220",
        "LOGNAME": "night-shift",
    }

    async def run(*arguments: str, **more: str) -> Result:
        # In a thread, because a command runs its own event loop.
        program = ["dead-letters", *arguments]
        return await asyncio.to_thread(CliRunner().invoke, app, program, env=variables | more)

    return run


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.guarantee("G41")
async def test_dead_letters_are_listed_and_shown_without_content(
    database: Database, letters: Command
) -> None:
    assert (await letters("list")).stdout == "no letter matches\n"
    [first, behind] = await park_letters(database, KEY, count=2)
    head, row, _ = (await letters("list")).stdout.splitlines()
    assert head.split()[:6] == ["id", "group", "key", "status", "cause", "error"]
    assert row.split()[:6] == [str(first), "projection", KEY, "PARKED", "HANDLER_FAILED", "ValueError"]
    assert "only the first 1 letters" in (await letters("list", "--limit", "1")).stdout
    found = parsed(await letters("list", "--cause", "BLOCKED", "--json"))
    assert [letter["id"] for letter in found] == [behind]

    shown = (await letters("show", str(first))).stdout
    assert "ValueError: no such session" in shown
    assert "秘密" not in shown
    assert "秘密" in (await letters("show", str(first), "--payload")).stdout
    assert parsed(await letters("show", str(first), "--json"))["payload"] is None
    unknown = await letters("show", "4711")
    assert (unknown.exit_code, unknown.stderr.count("\n")) == (1, 1)


async def test_dead_letters_can_be_read_at_80_columns(database: Database, letters: Command) -> None:
    [first] = await park_letters(database, KEY)
    for arguments in (("list",), ("show", str(first)), ("replay", "--all")):
        printed = (await letters(*arguments, COLUMNS="80")).stdout
        assert max(map(len, printed.splitlines())) <= 80
        lines = [" ".join(line.split()) for line in printed.splitlines()]
        assert {f"key {KEY}", "cause HANDLER_FAILED"} <= {*lines}


@pytest.mark.guarantee("G42")
async def test_replay_command_previews_then_requests(database: Database, letters: Command) -> None:
    [_, behind] = await park_letters(database, "a", count=2)
    preview = (await letters("replay", "--id", str(behind))).stdout
    assert "dry run: 1 would be requested for replay; add --yes to do it" in preview
    assert "note: 1 of these letters will wait for an earlier letter of their key" in preview
    assert await letter_statuses(database) == ["PARKED", "PARKED"]
    assert parsed(await letters("replay", "--all", "--json"))["letters_total"] == 2

    done = (await letters("replay", "--id", str(behind), "--yes")).stdout
    assert done.startswith("1 requested for replay\nnote: 1 of these letters")
    done = parsed(
        await letters("replay", "--key", "a", "--yes", "--reason", "repaired", "--by", "ann", "--json")
    )
    assert done == {"act": "replay", "done": True, "letters_total": 1, "letters_behind_another": 0}
    assert (
        await letters("replay", "--key", "a", "--yes")
    ).stdout == "no letter matches; nothing was changed\n"
    rows = await letter_rows(database)
    assert [(row["resolved_by"], row["resolved_reason"]) for row in rows] == [
        ("ann", "repaired"),
        ("night-shift", None),
    ]


@pytest.mark.guarantee("G42")
async def test_discard_command_previews_then_discards(database: Database, letters: Command) -> None:
    [first, _] = await park_letters(database, "a", count=2)
    arguments = ("discard", "--id", str(first), "--reason", "test data")
    assert "dry run: 1 would be discarded" in (await letters(*arguments)).stdout
    assert await letter_statuses(database) == ["PARKED", "PARKED"]
    done = (await letters(*arguments, "--yes")).stdout
    assert done == "1 discarded\nkeys whose next letter will be replayed: 1\n"
    assert await letter_statuses(database) == ["DISCARDED", "REPLAY_REQUESTED"]
    assert [(act["actor"], act["reason"]) for act in await operator_acts(database)] == [
        ("night-shift", "test data")
    ]
    again = await letters(*arguments, "--yes")
    assert (again.exit_code, again.stderr.count("\n")) == (1, 1)
    assert (await letters("discard", "--all", "--reason", " ")).exit_code == 2
    assert (await letters("discard", "--all")).exit_code == 2


async def test_dead_letter_action_needs_a_selection(database: Database, letters: Command) -> None:
    refused = await letters("replay", "--yes")
    assert refused.exit_code == 1
    assert "no dead letters are selected; use --id" in refused.stderr


async def test_acts_command_lists_actions_on_letters(
    database: Database, letters: Command, postgres_settings: PostgresSettings, kafka_settings: KafkaSettings
) -> None:
    [first] = await park_letters(database, "a")
    await letters("replay", "--all", "--yes")
    variables = command_environment(postgres_settings, kafka_settings) | {"COLUMNS": "220"}
    acts = await asyncio.to_thread(CliRunner().invoke, app, ["outbox", "acts"], env=variables)
    assert f'"letters":[{first}]' in acts.stdout
