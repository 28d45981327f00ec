"""Queries of dead letters read each key and each letter once, and no letters of other groups."""

import json
from typing import Any

import asyncpg
import pytest
from relaybox.consumers._dead_letters import _SQL as CONSUMER_SQL
from relaybox.db import Database
from relaybox.operations import LetterSelection, LetterStatus
from relaybox.operations._consumers import _SQL as OPERATIONS_SQL
from relaybox.operations._letter_actions import _PREVIEW, _REPLAY

from tests.fixtures.letters import park_letters

LETTERS = 3_000
_COPY = """
    INSERT INTO dead_letters (consumer_group, topic, partition, message_offset, message_key, headers, value,
                              reason, error_code, error, attempts, holds_key)
    SELECT consumer_group, topic, partition, message_offset + number, message_key, headers, value,
           'BLOCKED', 'KEY_BLOCKED', error, 0, holds_key
    FROM dead_letters, generate_series(1, $1::int) AS number
"""


def parts(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every node of *plan*."""
    return [plan, *(part for child in plan.get("Plans", ()) for part in parts(child))]


async def nodes(superuser: asyncpg.Connection, query: str, *arguments: Any) -> list[dict[str, Any]]:
    """Execute *query* with *arguments*, and return the nodes of its plan."""
    [row] = await superuser.fetch("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query, *arguments)
    return parts(json.loads(row[0])[0]["Plan"])


@pytest.fixture
async def letters_of_one_key(database: Database, superuser: asyncpg.Connection) -> None:
    await park_letters(database, "a")
    await superuser.execute(_COPY, LETTERS)
    await superuser.execute("ANALYZE dead_letters")


@pytest.mark.guarantee("G42")
@pytest.mark.usefixtures("letters_of_one_key")
async def test_preview_searches_earlier_letters_once_for_each_key(superuser: asyncpg.Connection) -> None:
    arguments = (*LetterSelection().arguments(), [LetterStatus.PARKED], 20)
    found = await nodes(superuser, _PREVIEW, *arguments)
    searches = [node["Actual Loops"] for node in found if node.get("Alias") == "earlier"]
    assert searches == [1]


@pytest.mark.guarantee("G42")
@pytest.mark.usefixtures("letters_of_one_key")
async def test_step_of_a_replay_reads_only_its_own_letters(superuser: asyncpg.Connection) -> None:
    selection = LetterSelection()
    arguments = (*selection.arguments(), -1, 100, "ann", None, selection.as_json())
    found = await nodes(superuser, _REPLAY, *arguments)
    assert [node["Actual Loops"] for node in found if node.get("Alias") == "earlier"] == [1]
    read = [node for node in found if node.get("Relation Name") == "dead_letters" and "Plans" not in node]
    assert "Seq Scan" not in {node["Node Type"] for node in read}
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in read) <= 3 * 100


@pytest.mark.guarantee("G42")
@pytest.mark.usefixtures("letters_of_one_key")
async def test_replay_does_not_read_the_letters_replayed_before(
    database: Database, superuser: asyncpg.Connection
) -> None:
    """A backup's snapshot keeps the index entries of replayed letters."""
    async with database.connection() as backup:
        await backup.fetch("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await backup.fetch("SELECT FROM dead_letters LIMIT 1")
        [row] = await superuser.fetch(
            "WITH replayed AS (UPDATE dead_letters SET status = 'REPLAYED', resolved_at = now() "
            "WHERE id < (SELECT max(id) FROM dead_letters) RETURNING id) "
            "SELECT max(id) AS last_id FROM replayed"
        )
        await superuser.execute("UPDATE dead_letters SET status = 'REPLAY_REQUESTED' WHERE status = 'PARKED'")
        arguments = ("projection", "domain-events", b"a", None, row["last_id"])
        [plan, *_] = await nodes(superuser, CONSUMER_SQL["claim_next_letter"], *arguments)
        await backup.fetch("ROLLBACK")
    assert plan["Actual Rows"] == 1
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 200


@pytest.mark.guarantee("G42")
@pytest.mark.usefixtures("letters_of_one_key")
@pytest.mark.parametrize(("group", "letters"), [("shipping", 100), ("settled", 0), ("without-letters", 0)])
@pytest.mark.parametrize("name", ["count_unresolved", "letters_of_groups"])
async def test_count_of_letters_reads_only_unresolved_ones_of_the_group(
    database: Database, superuser: asyncpg.Connection, name: str, group: str, letters: int
) -> None:
    """The plan is that of a prepared statement, which knows neither the group nor the limit."""
    await park_letters(database, None, count=120, group="shipping")
    await park_letters(database, None, count=200, group="settled")
    await superuser.execute(
        "UPDATE dead_letters SET status = 'DISCARDED', resolved_at = now() WHERE consumer_group = 'settled'"
    )
    await superuser.execute("VACUUM ANALYZE dead_letters")
    query, argument = {
        "count_unresolved": (CONSUMER_SQL["count_unresolved"], f"'{group}'"),
        "letters_of_groups": (OPERATIONS_SQL["letters_of_groups"], f"ARRAY['{group}']"),
    }[name]
    await superuser.execute("SET plan_cache_mode = force_generic_plan")
    await superuser.execute(f"PREPARE counted AS {query}")
    found = await nodes(superuser, f"EXECUTE counted ({argument}, 100)")
    reads = [node for node in found if node.get("Alias") in ("l", "dead_letters")]
    assert [node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in reads] == [letters]
