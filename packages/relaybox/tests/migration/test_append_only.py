"""The database itself refuses every change of ``domain_events`` (G07)."""

import re
from collections.abc import AsyncIterator

import asyncpg
import pytest
from relaybox.db import Database, Executor
from relaybox.local import LocalPostgres
from relaybox.settings import PostgresSettings

CHANGES = [
    "UPDATE domain_events SET payload = '{}'",
    "UPDATE domain_events SET created_at = now() WHERE false OR aggregate_version = 1",
    "DELETE FROM domain_events",
    "TRUNCATE domain_events",
    "TRUNCATE domain_events, command_inbox CASCADE",
    "INSERT INTO domain_events (event_id, event_type, aggregate_type, aggregate_id, aggregate_version)"
    " SELECT event_id, event_type, aggregate_type, aggregate_id, aggregate_version FROM domain_events"
    " ON CONFLICT (event_id) DO UPDATE SET payload = '{}'",
    "MERGE INTO domain_events AS kept USING domain_events AS old ON kept.id = old.id"
    " WHEN MATCHED THEN DELETE",
]
WAYS_AROUND = [
    "ALTER TABLE domain_events DISABLE TRIGGER ALL",
    "ALTER TABLE domain_events DISABLE TRIGGER domain_events_append_only",
    "DROP TRIGGER domain_events_append_only ON domain_events",
    "DROP TABLE domain_events",
    "ALTER TABLE domain_events RENAME TO gone",
    "ALTER TABLE domain_events OWNER TO CURRENT_USER",
    "CREATE OR REPLACE FUNCTION refuse_change_of_events() RETURNS trigger LANGUAGE plpgsql"
    " AS 'BEGIN RETURN OLD; END'",
    "SET session_replication_role = replica",
    "SET ROLE relaybox_owner",
    "SELECT relaybox_grant(current_user::name)",
    "CREATE RULE away AS ON DELETE TO domain_events DO INSTEAD NOTHING",
]
RECORD = (
    "INSERT INTO domain_events (event_id, event_type, aggregate_type, aggregate_id, aggregate_version)"
    " VALUES (gen_random_uuid(), 'Suite.Thing.Created', 'THING', '1', 1)"
)
READ = "SELECT id, event_id, payload::text AS payload, created_at FROM domain_events"


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


@pytest.fixture
async def superuser(
    postgres_server: LocalPostgres, postgres_settings: PostgresSettings
) -> AsyncIterator[Executor]:
    connection = await asyncpg.connect(
        host=postgres_server.host,
        port=postgres_server.port,
        user=postgres_server.superuser,
        password=postgres_server.superuser_password,
        database=postgres_settings.db,
    )
    yield connection
    await connection.close()


@pytest.fixture(autouse=True)
async def one_event_stays_as_it_is(service: Executor) -> AsyncIterator[None]:
    """Check at the end of each test that the recorded event is unchanged."""
    await service.fetch(RECORD)
    before = await service.fetch(READ)
    yield
    assert await service.fetch(READ) == before


async def all_refused(
    executor: Executor, statements: list[str], error: type[asyncpg.PostgresError], says: str
) -> None:
    """Use one database for all tests of the file: a database per statement would take a minute."""
    for statement in statements:
        complaint = f"accepted: {statement}"
        try:
            await executor.fetch(statement)
        except error as refusal:
            complaint = str(refusal)
        assert re.search(says, complaint), complaint


@pytest.mark.guarantee("G07")
async def test_services_role_cannot_change_an_event(service: Executor) -> None:
    await all_refused(service, CHANGES, asyncpg.InsufficientPrivilegeError, "permission denied")


@pytest.mark.guarantee("G07")
async def test_services_role_cannot_bypass_append_only_events(service: Executor) -> None:
    await all_refused(service, WAYS_AROUND, asyncpg.InsufficientPrivilegeError, "permission denied|must be")


@pytest.mark.guarantee("G07")
async def test_services_role_cannot_grant_itself_rights(service: Executor) -> None:
    # PostgreSQL gives a warning and changes nothing.
    await service.fetch("GRANT ALL ON domain_events TO CURRENT_USER")
    await all_refused(service, CHANGES, asyncpg.InsufficientPrivilegeError, "permission denied")


@pytest.mark.guarantee("G07")
async def test_owner_cannot_change_an_event_by_mistake(owner: Executor) -> None:
    await all_refused(owner, CHANGES, asyncpg.RestrictViolationError, "append-only")


@pytest.mark.guarantee("G07")
async def test_no_session_setting_disables_the_rule(superuser: Executor) -> None:
    await superuser.fetch("SET session_replication_role = replica")
    await all_refused(superuser, CHANGES, asyncpg.RestrictViolationError, "append-only")


@pytest.mark.guarantee("G07")
async def test_owner_cannot_use_the_setting_for_replicas(owner: Executor) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await owner.fetch("SET session_replication_role = replica")


async def test_version_of_an_aggregate_is_recorded_once(service: Executor) -> None:
    with pytest.raises(asyncpg.UniqueViolationError, match="domain_events_aggregate_version_key"):
        await service.fetch(RECORD)
