"""A service can close and empty slots of bodies only by the function for it (G70)."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from relaybox.db import Database, Executor
from relaybox.settings import PostgresSettings

RETAIN = "SELECT relaybox_retain_bodies('12 h') AS step"
FORBIDDEN = [
    "SELECT opened_at FROM idempotency_slots",
    "SELECT count(*) FROM idempotency_slots",
    "UPDATE idempotency_slots SET opened_at = now()",
    "INSERT INTO idempotency_slots DEFAULT VALUES",
    "DELETE FROM idempotency_slots",
    "TRUNCATE idempotency_slots",
    "DROP TABLE idempotency_slots",
    "SELECT nextval('idempotency_turn')",
    "SELECT setval('idempotency_turn', 1)",
    "TRUNCATE idempotency_bodies",
    "TRUNCATE idempotency_bodies_0",
    "ALTER FUNCTION relaybox_retain_bodies(INTERVAL) SECURITY INVOKER",
    "ALTER FUNCTION relaybox_retain_bodies(INTERVAL) RESET search_path",
]
EXPIRED = """
    INSERT INTO idempotency_bodies (key, body, expires_at) VALUES ('expired', 'body', now() - interval '1 h')
"""


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Executor]:
    async with database.connection() as connection:
        yield connection


@pytest.fixture
async def owner(postgres_settings: PostgresSettings) -> AsyncIterator[Executor]:
    database = Database(postgres_settings.as_owner())
    async with database.connection() as connection:
        yield connection
    await database.close()


async def steps(executor: Executor) -> list[str | None]:
    """Return the steps that are executed until none is due."""
    done: list[str | None] = []
    while not done or done[-1] is not None:
        [row] = await executor.fetch(RETAIN)
        done.append(row["step"])
    return done


@pytest.mark.guarantee("G70")
async def test_services_role_has_no_direct_right_on_slots(service: Executor) -> None:
    for statement in FORBIDDEN:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=r"permission denied|must be owner"):
            await service.fetch(statement)


@pytest.mark.guarantee("G70")
async def test_function_closes_and_empties_slots_as_the_owner(service: Executor, owner: Executor) -> None:
    await service.fetch(EXPIRED)
    assert await steps(service) == [None], "the slot has just been opened"
    await owner.fetch("UPDATE idempotency_slots SET opened_at = now() - interval '13 h'")
    assert await steps(service) == ["closed", "emptied", None]
    [row] = await owner.fetch("SELECT now() - opened_at < '1 h' AS anew FROM idempotency_slots")
    assert row["anew"], "the age of the slot that is open now"
    assert await service.fetch("SELECT FROM idempotency_bodies") == []


@pytest.mark.guarantee("G70")
async def test_temporary_table_cannot_replace_the_slots(service: Executor) -> None:
    await service.fetch(EXPIRED)
    await service.fetch("CREATE TEMPORARY TABLE idempotency_slots (opened_at TIMESTAMPTZ)")
    await service.fetch("INSERT INTO idempotency_slots VALUES ('2001-01-01')")
    assert await steps(service) == [None]
    [row] = await service.fetch("SELECT opened_at < '2002-01-01' AS untouched FROM idempotency_slots")
    assert row["untouched"]


@pytest.mark.guarantee("G70")
async def test_exactly_one_slot_is_open(owner: Executor) -> None:
    for statement, refusal in (
        ("INSERT INTO idempotency_slots DEFAULT VALUES", asyncpg.UniqueViolationError),
        ("INSERT INTO idempotency_slots VALUES (false)", asyncpg.CheckViolationError),
    ):
        with pytest.raises(refusal):
            await owner.fetch(statement)


async def test_only_the_service_role_may_call_definer_functions(owner: Executor) -> None:
    rows = await owner.fetch(
        "SELECT proname, has_function_privilege('public', oid, 'EXECUTE') AS public_may,"
        " proconfig::text LIKE '%search_path=%pg_temp%' AS fixed"
        " FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace ORDER BY proname"
    )
    assert "relaybox_retain_bodies" in {row["proname"] for row in rows}
    assert [row["proname"] for row in rows if row["public_may"] or not row["fixed"]] == []
