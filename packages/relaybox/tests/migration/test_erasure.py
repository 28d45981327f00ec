"""The one exception to the append-only rule: one function, one kind of change, recorded (G07)."""

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
from relaybox.db import Database, Executor
from relaybox.settings import PostgresSettings

THING = uuid.uuid4()
OTHER = uuid.uuid4()
RECORD = """
    INSERT INTO domain_events (event_id, event_type, aggregate_type, aggregate_id, aggregate_version, payload,
        metadata)
    VALUES (gen_random_uuid(), 'Suite.Thing.Created', 'THING', $1, 1, '{"secret": "s"}', '{"user_id": "ann",
        "source_service": "suite", "command_id": "c", "timestamp": "t", "request_id": "my name"}')
"""
READ = """
    SELECT id, event_id, correlation_id, causation_id, event_type, event_version, aggregate_type,
        aggregate_id, aggregate_version, created_at, payload::text AS payload, metadata::text AS metadata
    FROM domain_events ORDER BY id
"""
ERASE = "SELECT * FROM relaybox_erase('THING', $1::text[], 'ann', 'asked to')"
#: The change that an erasure makes, without the record of an erasure.
FORGED = """
    UPDATE domain_events SET payload = '{"erased": true}', metadata = relaybox_kept_metadata(metadata)
"""
MADE_UP = """
    INSERT INTO event_erasures (aggregate_type, aggregate_ids, actor, reason) VALUES ('T', '{}', 'a', 'r')
"""
NAMELESS = [
    ERASE.replace("$1::text[]", "ARRAY['1']").replace("'asked to'", "''"),
    ERASE.replace("$1::text[]", "ARRAY['1']").replace("'ann'", "NULL"),
]


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Executor]:
    async with database.connection() as connection:
        yield connection


@pytest.fixture
async def owner(postgres_settings: PostgresSettings) -> AsyncIterator[asyncpg.Connection]:
    database = Database(postgres_settings.as_owner())
    async with database.connection() as connection:
        yield connection
    await database.close()


@pytest.fixture(autouse=True)
async def two_events(service: Executor) -> None:
    for one in (THING, OTHER):
        await service.fetch(RECORD, str(one))


async def test_erased_event_keeps_everything_but_its_content(service: Executor) -> None:
    before = [dict(row) for row in await service.fetch(READ)]
    await service.fetch(ERASE, [str(THING)])
    erased, other = [dict(row) for row in await service.fetch(READ)]
    assert other == before[1]
    kept = '{"user_id": "ann", "timestamp": "t", "command_id": "c", "source_service": "suite"}'
    assert erased == {**before[0], "payload": '{"erased": true}', "metadata": kept}


async def test_erasure_is_recorded_and_services_only_read_the_record(
    service: Executor, owner: Executor
) -> None:
    await service.fetch(ERASE, [str(THING)])
    [row] = await service.fetch("SELECT * FROM event_erasures")
    assert (row["aggregate_type"], row["aggregate_ids"]) == ("THING", [str(THING)])
    assert (row["actor"], row["reason"], row["events"]) == ("ann", "asked to", 1)
    for change in (
        "UPDATE event_erasures SET actor = 'another-actor'",
        "DELETE FROM event_erasures",
        "TRUNCATE event_erasures",
        MADE_UP,
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            await service.fetch(change)


@pytest.mark.parametrize("statement", NAMELESS)
async def test_erasure_requires_an_actor_and_a_reason(service: Executor, statement: str) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await service.fetch(statement)


@pytest.mark.guarantee("G07")
async def test_services_role_erases_only_by_the_function(database: Database) -> None:
    async with database.connection() as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            await connection.fetch(FORGED)
        async with connection.transaction():
            await connection.fetch(ERASE, [str(THING)])
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
                async with connection.transaction():
                    await connection.fetch(FORGED)


@pytest.mark.guarantee("G07")
async def test_owner_cannot_erase_without_a_record(owner: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        await owner.fetch(FORGED)
    await owner.fetch(ERASE, [str(THING)])
    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        await owner.fetch(f"{FORGED} WHERE aggregate_id = '{OTHER}'")


@pytest.mark.guarantee("G07")
async def test_record_of_an_erasure_is_valid_only_in_its_transaction(
    owner: asyncpg.Connection, database: Database
) -> None:
    """Also while the first transaction is open, and with a forged time."""
    async with database.connection() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.fetch(ERASE, [str(THING)])
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await owner.fetch(f"{FORGED} WHERE aggregate_id = '{OTHER}'")
        await transaction.commit()
    async with owner.transaction():
        await owner.fetch("UPDATE event_erasures SET erased_at = now()")
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            async with owner.transaction():
                await owner.fetch(f"{FORGED} WHERE aggregate_id = '{OTHER}'")


@pytest.mark.guarantee("G07")
async def test_temporary_table_cannot_replace_the_record(owner: asyncpg.Connection) -> None:
    await owner.fetch("CREATE TEMPORARY TABLE event_erasures (LIKE public.event_erasures INCLUDING ALL)")
    async with owner.transaction():
        await owner.fetch(MADE_UP)
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            async with owner.transaction():
                await owner.fetch(FORGED)


@pytest.mark.guarantee("G07")
@pytest.mark.parametrize(
    "change",
    [
        "payload = '{\"erased\": false}'",
        "metadata = '{}'",
        "payload = '{\"erased\": true}'",
        f"{FORGED.split('SET')[1]}, event_type = 'Suite.Thing.Updated'",
        f"{FORGED.split('SET')[1]}, aggregate_version = 2",
        f"{FORGED.split('SET')[1]}, created_at = now()",
        f"{FORGED.split('SET')[1]}, event_id = gen_random_uuid()",
    ],
)
async def test_recorded_erasure_permits_no_other_change(owner: asyncpg.Connection, change: str) -> None:
    async with owner.transaction():
        await owner.fetch(ERASE, [str(THING)])
        for statement in (f"UPDATE domain_events SET {change}", "DELETE FROM domain_events"):
            with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
                async with owner.transaction():
                    await owner.fetch(f"{statement} WHERE aggregate_id = '{OTHER}'")


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_erasure_with_an_older_snapshot_is_refused(database: Database, isolation: str) -> None:
    async with database.connection() as connection:
        with pytest.raises(asyncpg.RaiseError, match="READ COMMITTED"):
            async with connection.transaction(isolation=isolation):
                await connection.fetch(ERASE, [str(THING)])
