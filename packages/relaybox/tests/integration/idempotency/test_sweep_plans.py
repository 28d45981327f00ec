"""A sweep reads only expired rows, however many live rows there are (G70)."""

from typing import Any

import asyncpg
import pytest
from relaybox.db import Database
from relaybox.idempotency._service import QUERIES

LIVE = 20_000
CLAIMS_MAX = 1_000
_CLAIMS = """
    INSERT INTO idempotency_cache (key, result, expires_at)
    SELECT $2 || n, '{}', now() + $3 * interval '1 h' FROM generate_series(1, $1) AS n
"""
#: Bodies in every slot, also in the open one; all bodies in slot 3 have expired.
_BODIES = """
    INSERT INTO idempotency_bodies (key, slot, body, expires_at)
    SELECT 'k-' || n, slot, 'body', now() + CASE
        WHEN slot = 3 OR n % 2 = 0 THEN interval '-1 h' ELSE interval '1 h' END
    FROM generate_series(1, $1) AS n, generate_series(0, 3) AS slot
"""
_READ = """
    SELECT sum(seq_tup_read)::int AS one_by_one, sum(idx_tup_fetch)::int AS by_index
    FROM pg_stat_xact_user_tables WHERE relname LIKE 'idempotency_bodies%'
"""
both_plans = pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
statistics = pytest.mark.parametrize("analysed", [True, False], ids=["analysed", "no statistics"])


def parts(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every node of *plan*."""
    return [plan, *(part for child in plan.get("Plans", ()) for part in parts(child))]


@pytest.mark.guarantee("G70")
@both_plans
@statistics
@pytest.mark.parametrize("expired", [3_000, 500], ids=["more than a batch", "less"])
async def test_expiring_claims_reads_only_expired_claims(
    database: Database, superuser: asyncpg.Connection, plan: str, analysed: bool, expired: int
) -> None:
    """Also if the statistics show no expired claim, as after a night without a sweeper."""
    await superuser.execute("ALTER TABLE idempotency_cache SET (autovacuum_enabled = off)")
    await superuser.execute(_CLAIMS, LIVE, "live-", 1.0)
    if analysed:
        await superuser.execute("ANALYZE idempotency_cache")
    await superuser.execute(_CLAIMS, expired, "expired-", -1.0)
    async with database.connection() as connection:
        await connection.fetch(f"SET plan_cache_mode = {plan}")
        [row] = await connection.fetch("EXPLAIN (ANALYZE, FORMAT JSON) " + QUERIES["expire"], CLAIMS_MAX)
    nodes = parts(row[0][0]["Plan"])
    read = [one for one in nodes if one.get("Relation Name") == "idempotency_cache" and "Plans" not in one]
    assert sorted(one["Node Type"] for one in read) == ["Index Scan", "Tid Scan"]
    assert [one["Index Cond"] for one in read if "Index Cond" in one] == [
        "(expires_at <= statement_timestamp())"
    ]
    assert {one["Actual Rows"] for one in read} == {min(CLAIMS_MAX, expired)}
    assert {one.get("Rows Removed by Filter", 0) for one in read} == {0}


@pytest.mark.guarantee("G70")
@both_plans
@statistics
async def test_checking_all_slots_reads_only_their_last_bodies(
    database: Database, superuser: asyncpg.Connection, plan: str, analysed: bool
) -> None:
    await superuser.execute(_BODIES, LIVE // 4)
    await superuser.execute("UPDATE idempotency_slots SET opened_at = now() - interval '1 d'")
    if analysed:
        await superuser.execute("ANALYZE idempotency_bodies")
    read: list[dict[str, int]] = []
    steps: list[str | None] = []
    async with database.connection() as connection:
        await connection.fetch(f"SET plan_cache_mode = {plan}")
        for _ in range(3):
            await connection.fetch("SELECT pg_stat_force_next_flush()")
            await connection.fetch("BEGIN")
            [row] = await connection.fetch(QUERIES["retain_bodies"], 3_600.0)
            steps.append(row["step"])
            read += [dict(row) for row in await connection.fetch(_READ)]
            await connection.fetch("COMMIT")
    assert steps == ["emptied", "closed", None]
    assert [one["one_by_one"] for one in read] == [0, 0, 0]
    # The last body of each slot, and that of the emptied slot once more; not all 20,000.
    assert [one["by_index"] for one in read] == [4, 3, 3]


@pytest.mark.guarantee("G70")
async def test_plan_made_for_small_slots_scans_no_whole_slot(
    database: Database, superuser: asyncpg.Connection
) -> None:
    for slot in range(4):
        await superuser.execute(f"ALTER TABLE idempotency_bodies_{slot} SET (autovacuum_enabled = off)")
    await superuser.execute(_BODIES.replace("'k-'", "'small-'").replace("'-1 h'", "'1 h'"), 2)
    await superuser.execute("ANALYZE idempotency_bodies")
    async with database.connection() as connection:
        await connection.fetch("SET plan_cache_mode = force_generic_plan")
        await connection.fetch(QUERIES["retain_bodies"], 3_600.0)
        await superuser.execute(_BODIES.replace("'-1 h'", "'1 h'"), LIVE // 4)
        await connection.fetch("SELECT pg_stat_force_next_flush()")
        await connection.fetch("BEGIN")
        await connection.fetch(QUERIES["retain_bodies"], 3_600.0)
        [read] = await connection.fetch(_READ)
        await connection.fetch("COMMIT")
    assert (read["one_by_one"], read["by_index"]) == (0, 3)
