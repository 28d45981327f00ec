"""``relaybox outbox`` on a real PostgreSQL."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from relaybox.cli import app
from relaybox.db import Database
from relaybox.settings import PostgresSettings
from typer.testing import CliRunner, Result

from tests.fixtures.outbox_rows import delay_row, fail_rows, mark_sent, operator_acts
from tests.fixtures.relays import put_events, rows_of

Outbox = Callable[..., Awaitable[Result]]


@pytest.fixture
def outbox(postgres_settings: PostgresSettings) -> Outbox:
    variables = {
        "POSTGRES_HOST": postgres_settings.host,
        "POSTGRES_PORT": str(postgres_settings.port),
        "POSTGRES_DB": postgres_settings.db,
        "POSTGRES_USER": postgres_settings.user,
        "POSTGRES_PASSWORD": postgres_settings.password.get_secret_value(),
        "COLUMNS": "220",
        "LOGNAME": "night-shift",
    }

    async def run(*arguments: str, **more: str) -> Result:
        # In a thread, because a command runs its own event loop.
        return await asyncio.to_thread(CliRunner().invoke, app, ["outbox", *arguments], env=variables | more)

    return run


@pytest.fixture
async def filled(database: Database) -> Database:
    """The first row of ``a`` is FAILED, the second of ``b`` waits for an attempt, rows of ``c`` are SENT."""
    for key in ("a", "b", "c"):
        await put_events(database, "domain-events", [key], count=3)
    await fail_rows(database, 1)
    await mark_sent(database, 4, 7, 8, 9)
    await delay_row(database, 5)
    return database


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.guarantee("G32")
async def test_blocked_shows_cause_age_head_and_rows_behind(filled: Database, outbox: Outbox) -> None:
    table = await outbox("blocked")
    assert table.exit_code == 0
    head, first, second = table.stdout.splitlines()
    assert head.split() == ["key", "lane", "waits", "for", *head.split()[4:]]
    assert first.split()[0] == "a"
    assert "an operator" in first
    assert "60 m" in first
    assert "RecordTooLarge it was" in first
    assert first.split()[-1] == "2"
    assert "the next attempt, in 60 m" in second

    found = parsed(await outbox("blocked", "--key", "a", "--json"))
    assert found["keys_total"] == 1
    [one] = found["keys"]
    assert (one["head"]["seq"], one["head"]["error_class"], one["behind"]) == (1, "RecordTooLarge", 2)


async def test_outbox_tables_can_be_read_at_80_columns(database: Database, outbox: Outbox) -> None:
    key, reason = str(UUID(int=2**127)), "the limit of the topic was raised after a long night, INC-17"
    await put_events(database, "domain-events-of-the-shop", [key], count=2)
    await fail_rows(database, 1)
    await outbox("skip", "--seq", "1", "--reason", reason, "--by", "ann", "--yes")
    acts = (await outbox("acts", COLUMNS="80")).stdout
    await fail_rows(database, 2)
    for arguments, facts in {
        ("blocked",): {"key": key, "waits for": "an operator", "head": "2", "error": "RecordTooLarge"},
        ("list",): {"key": key, "event type": "Genesis.Session.Created", "error": "RecordTooLarge"},
    }.items():
        printed = (await outbox(*arguments, COLUMNS="80")).stdout
        assert max(map(len, printed.splitlines())) <= 80
        lines = [" ".join(line.split()) for line in printed.splitlines()]
        assert {f"{name} {value}" for name, value in facts.items()} <= {*lines}
    assert f"reason {reason}" in [" ".join(line.split()) for line in acts.splitlines()]


@pytest.mark.parametrize("arguments", [("list",), ("acts",), ("purge", "--all", "--yes", "--reason", "old")])
async def test_database_without_schema_is_reported_with_the_remedy(
    outbox: Outbox, arguments: tuple[str, ...]
) -> None:
    result = await outbox(*arguments, POSTGRES_DB="postgres")
    assert result.exit_code == 1
    assert "run relaybox migrate up, or check POSTGRES_DB" in result.output
    assert "Traceback" not in result.output


async def test_outbox_without_rows_prints_a_line(database: Database, outbox: Outbox) -> None:
    assert (await outbox("blocked")).stdout == "no key is blocked\n"
    assert (await outbox("list")).stdout == "no row matches\n"
    assert (await outbox("acts")).stdout == "no action of an operator is recorded\n"


async def test_list_shows_unsent_rows_without_payload(filled: Database, outbox: Outbox) -> None:
    rows = parsed(await outbox("list", "--json"))
    assert [(row["seq"], row["state"]) for row in rows] == [
        (1, "failed"),
        (2, "pending"),
        (3, "pending"),
        (5, "retrying"),
        (6, "pending"),
    ]
    assert not any("payload" in row for row in rows)
    assert [
        row["seq"] for row in parsed(await outbox("list", "--state", "sent", "--key", "c", "--json"))
    ] == [
        7,
        8,
        9,
    ]
    assert [row["seq"] for row in parsed(await outbox("list", "--seq", "7", "--seq", "1", "--json"))] == [
        1,
        7,
    ]
    few = await outbox("list", "--limit", "2")
    assert few.stdout.endswith("only the first 2 rows are shown; use a larger --limit for more\n")


async def test_show_prints_payload_only_on_request(filled: Database, outbox: Outbox) -> None:
    [row] = await rows_of(filled, "seq = 1")
    shown = await outbox("show", "1")
    by_number, by_id = await outbox("show", "1", "--json"), await outbox("show", str(row["id"]), "--json")
    assert parsed(by_number) == parsed(by_id)
    assert row["payload"]["event_id"] in shown.stdout
    assert "RecordTooLarge it was" in shown.stdout
    assert "api-gateway" not in shown.stdout
    assert "api-gateway" in (await outbox("show", "1", "--payload")).stdout
    assert parsed(by_id)["payload"] is None


@pytest.mark.guarantee("G32")
async def test_retry_without_yes_is_a_dry_run(filled: Database, outbox: Outbox) -> None:
    dry = await outbox("retry", "--key", "a")
    assert dry.exit_code == 0
    assert dry.stdout.endswith("dry run: 1 would be put back to PENDING; add --yes to do it\n")
    assert parsed(await outbox("retry", "--key", "a", "--json")) | {"rows": []} == {
        "act": "retry",
        "done": False,
        "rows": [],
        "rows_total": 1,
        "rows_behind_another": 0,
    }
    assert await operator_acts(filled) == []

    done = await outbox("retry", "--key", "a", "--reason", "the limit is higher now", "--yes")
    assert done.stdout == "1 put back to PENDING\n"
    [row] = await rows_of(filled, "seq = 1")
    assert (row["status"], row["attempts"], row["error_data"]) == ("PENDING", 0, None)
    [act] = await operator_acts(filled)
    assert (act["actor"], act["act"], act["reason"]) == ("night-shift", "retry", "the limit is higher now")


@pytest.mark.guarantee("G32")
async def test_skip_requires_a_reason_and_is_recorded(filled: Database, outbox: Outbox) -> None:
    unsaid = await outbox("skip", "--seq", "1", "--yes")
    blank = await outbox("skip", "--seq", "1", "--reason", " ", "--yes")
    assert (unsaid.exit_code, blank.exit_code) == (2, 2)
    dry = await outbox("skip", "--seq", "1", "--reason", "not needed")
    assert "dry run: 1 would be skipped" in dry.stdout
    done = parsed(
        await outbox("skip", "--seq", "1", "--reason", "not needed", "--by", "ann", "--yes", "--json")
    )
    assert done == {"act": "skip", "done": True, "rows_total": 1, "rows_left": []}

    acts = await outbox("acts")
    assert "ann" in acts.stdout
    assert "not needed" in acts.stdout
    [act] = parsed(await outbox("acts", "--json"))
    assert (act["actor"], act["act"], act["reason"]) == ("ann", "skip", "not needed")
    assert [row["seq"] for row in act["target"]["rows"]] == [1]
    assert "skip by ann" in (await outbox("show", "1")).stdout


async def test_skip_names_rows_that_it_did_not_skip(filled: Database, outbox: Outbox) -> None:
    await fail_rows(filled, 2, 3)
    arguments = ("skip", "--seq", "1", "--seq", "3", "--seq", "4", "--reason", "not needed", "--yes")
    assert (await outbox(*arguments)).stdout == (
        "1 skipped\n"
        "not skipped: 3 (failed), 4 (sent); only FAILED rows can be skipped; "
        "skip or retry the earlier FAILED rows of their key first\n"
    )
    second = ("skip", "--seq", "2", "--seq", "5", "--reason", "not needed", "--yes", "--json")
    assert parsed(await outbox(*second))["rows_left"] == [{"seq": 5, "state": "retrying"}]
    assert (await outbox("skip", "--key", "a", "--reason", "not needed", "--yes")).stdout == "1 skipped\n"


@pytest.mark.guarantee("G32")
async def test_dry_run_names_rows_behind_another_failed_row(filled: Database, outbox: Outbox) -> None:
    await fail_rows(filled, 2)
    output = (await outbox("retry", "--seq", "2")).stdout
    assert "note: 1 of these rows will wait for an earlier FAILED row of their key" in output
    assert "note:" not in (await outbox("retry", "--key", "a")).stdout


@pytest.mark.guarantee("G32")
async def test_dry_run_of_skip_counts_only_rows_that_it_skips(filled: Database, outbox: Outbox) -> None:
    await fail_rows(filled, 2, 3, 6)
    by_class = ("skip", "--error-class", "RecordTooLarge", "--reason", "not needed")
    named = ("skip", "--seq", "2", "--seq", "3", "--seq", "6", "--reason", "not needed")
    assert "dry run: 4 would be skipped" in (await outbox(*by_class)).stdout

    dry = parsed(await outbox(*named, "--json"))
    assert ([row["seq"] for row in dry["rows"]], dry["rows_total"]) == ([6], 1)
    assert dry["rows_behind_another"] == 2
    assert (await outbox(*named)).stdout.endswith(
        "note: 2 selected FAILED rows are behind an earlier FAILED row of their key and will not be skipped; "
        "skip or retry the earlier row first\n"
        "dry run: 1 would be skipped; add --yes to do it\n"
    )
    assert (await outbox(*named, "--yes")).stdout.startswith("1 skipped\n")

    # Now the selection has only rows behind another: the dry run refuses it as the skip does.
    refused, dry_refused = await outbox(*named, "--yes"), await outbox(*named)
    assert (refused.exit_code, dry_refused.exit_code) == (1, 1)
    assert dry_refused.stderr == refused.stderr
    await fail_rows(filled, 2, error_class="TopicUnknown")
    behind = (await outbox("skip", "--error-class", "TopicUnknown", "--reason", "not needed")).stdout
    assert behind.startswith("no row matches\nnote: 1 selected FAILED rows are behind an earlier FAILED row")
    assert "dry run" not in behind


async def test_purge_removes_only_sent_and_skipped_rows(filled: Database, outbox: Outbox) -> None:
    assert "dry run: 4 would be removed" in (await outbox("purge", "--all")).stdout
    assert (await outbox("purge", "--key", "c", "--yes")).stdout == "3 removed\n"
    nothing = await outbox("purge", "--older-than", "1h", "--yes")
    assert nothing.stdout == "no row matches; nothing was changed\n"
    assert [row["seq"] for row in await rows_of(filled)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["retry", "--yes"], "no rows are selected; use --id"),
        (["skip", "--reason", "x"], "no rows are selected; use --id"),
        (["purge", "--yes"], "no rows are selected; use --id"),
        (["retry", "--seq", "2", "--yes"], "none of the named rows is FAILED"),
        (["purge", "--seq", "1"], "none of the named rows is SENT or skipped"),
        (["show", "99"], "the outbox has no row 99"),
        (
            ["retry", "--all", "--by", " ", "--yes"],
            "the action is recorded with an operator's name; add --by NAME",
        ),
    ],
)
async def test_refused_action_is_one_line(
    filled: Database, outbox: Outbox, arguments: list[str], message: str
) -> None:
    result = await outbox(*arguments)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {message}")
    assert await operator_acts(filled) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--older-than", "soon"],
        ["list", "--older-than", "-1s"],
        ["list", "--id", "17"],
        ["list", "--seq", "0"],
        ["list", "--seq", str(2**63)],
        ["list", "--fault", "mine"],
        ["list", "--state", "lost"],
        ["list", "--limit", "0"],
        ["show", "first"],
        ["show", str(2**63)],
    ],
)
async def test_malformed_option_is_refused_without_a_query(outbox: Outbox, arguments: list[str]) -> None:
    result = await outbox(*arguments, POSTGRES_PORT="1")
    assert result.exit_code == 2
    assert (arguments[1] if arguments[0] == "list" else "ID|SEQ") in result.stderr


async def test_outbox_without_postgresql_prints_one_line(outbox: Outbox) -> None:
    result = await outbox("blocked", POSTGRES_PORT="1")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: PostgreSQL cannot be reached at")


async def test_key_cannot_send_terminal_codes(database: Database, outbox: Outbox) -> None:
    await put_events(database, "domain-events", ["[red]\x1b[2J"])
    output = (await outbox("list")).stdout
    assert "[red]�[2J" in output
    assert "\x1b" not in output
