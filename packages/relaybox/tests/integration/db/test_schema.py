"""The library in its own schema (``POSTGRES_SCHEMA``), beside application tables with the same names."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from relaybox.commands import CommandService
from relaybox.db import (
    BACKBONE,
    TABLES,
    Database,
    Executor,
    MigrationFailed,
    executor_of,
    include_name,
    migrate_down,
    migrate_up,
    pending_migrations,
    schema_script,
)
from relaybox.idempotency import IdempotencyService, sweep
from relaybox.local import LocalPostgres
from relaybox.operations import relay_status, request_lanes
from relaybox.outbox import Listener, Notifier, retain
from relaybox.relay import Relay
from relaybox.retention import remove_old_records
from relaybox.settings import (
    IdempotencySettings,
    KafkaSettings,
    PostgresSettings,
    RelaySettings,
    RetentionSettings,
)
from relaybox.testing import superuser_of
from relaybox.verify import Kind, verify
from sqlalchemy import Connection, MetaData

from tests.fixtures.both_postgres import dump_schema
from tests.fixtures.counters import counters, submit
from tests.fixtures.relays import put_events, read_topic, rows_of, running, wait_until_all_sent
from tests.fixtures.waiting import eventually

REVISIONS = [one.revision for one in BACKBONE.script().walk_revisions()][::-1]
#: Tables of an application, each with one row; most have the name of a library table.
OWN_TABLES = sorted({"users", "tasks", *TABLES})
#: One row for each kind of removal.
OLD_ROWS = (
    "INSERT INTO event_outbox (topic, payload, status, sent_at) VALUES ('t', '{}', 'SENT', 'epoch')",
    "UPDATE event_outbox_slots SET opened_at = 'epoch' WHERE slot = 0",
    "INSERT INTO idempotency_cache (key, result, expires_at) VALUES ('k', '{}', 'epoch')",
    "INSERT INTO idempotency_bodies (key, body, expires_at, slot) VALUES ('k', '', 'epoch', 3)",
    "INSERT INTO command_inbox (session_id, command_type, status, created_at)"
    " VALUES (gen_random_uuid(), 'Old', 'COMPLETED', 'epoch')",
    "INSERT INTO command_inbox (session_id, command_type, idempotency_key, created_at)"
    " VALUES (gen_random_uuid(), 'Keyed', 'k', 'epoch')",
    "INSERT INTO async_tasks (task_type, status, updated_at) VALUES ('t', 'COMPLETED', 'epoch')",
    "INSERT INTO consumed_events (consumer, event_id, consumed_at) VALUES ('c', gen_random_uuid(), 'epoch')",
    "INSERT INTO dead_letters (consumer_group, topic, partition, message_offset, headers, reason, error_code,"
    " error, attempts, holds_key, status, resolved_at)"
    " VALUES ('c', 't', 0, 0, '[]', 'HANDLER_FAILED', 'E', 'e', 1, false, 'DISCARDED', 'epoch')",
)
Connect = Callable[[PostgresSettings], Database]


@pytest.fixture
def shop(empty_postgres_settings: PostgresSettings) -> PostgresSettings:
    """Return the settings of a product in the schema ``shop``, which does not exist yet."""
    return empty_postgres_settings.model_copy(update={"schema_name": "shop"})


@pytest.fixture
def club(empty_postgres_settings: PostgresSettings) -> PostgresSettings:
    """Return the settings of a product of the same database whose schema has a reserved word as name."""
    return empty_postgres_settings.model_copy(update={"schema_name": "user"})


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """``connect(settings)``: open connections that are closed at the end."""
    async with AsyncExitStack() as stack:

        def to(settings: PostgresSettings) -> Database:
            database = Database(settings, application_name="test")
            stack.push_async_callback(database.close)
            return database

        yield to


@pytest.fixture
async def admin(
    postgres_server: LocalPostgres, empty_postgres_settings: PostgresSettings
) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection of the application, which has PostgreSQL's default search_path."""
    connection = await superuser_of(postgres_server, empty_postgres_settings.db)
    await connection.execute(f"SET ROLE {postgres_server.owner_user}")
    yield connection
    await connection.close()


def public_part(server: LocalPostgres, settings: PostgresSettings) -> list[str]:
    """Return the output of pg_dump for the schema public."""
    return [line for line in dump_schema(server, settings).splitlines() if "public." in line]


async def rows_in_public(admin: asyncpg.Connection) -> list[str]:
    return [await admin.fetchval(f"SELECT owned FROM public.{name}") for name in OWN_TABLES]


async def test_own_schema_leaves_application_tables_in_public_unchanged(
    shop: PostgresSettings,
    admin: asyncpg.Connection,
    connect: Connect,
    postgres_server: LocalPostgres,
    kafka_settings: KafkaSettings,
    topic: str,
) -> None:
    for name in OWN_TABLES:
        await admin.execute(
            f"CREATE TABLE public.{name} (owned TEXT); INSERT INTO public.{name} VALUES ('{name}')"
        )
    before = public_part(postgres_server, shop)

    assert await migrate_up(shop, BACKBONE) == REVISIONS
    database = connect(shop)
    assert await pending_migrations(database, BACKBONE) == []
    service = CommandService(database, [counters], notifier=Notifier(database), source_service="suite")
    created = await submit(service, "CreateCounter")
    await submit(service, "Increase", created.aggregate_id)
    await service.close()
    await admin.execute("UPDATE shop.event_outbox SET topic = $1", topic)
    async with running(Relay(database, kafka_settings, RelaySettings(poll_interval=3_600))):
        await wait_until_all_sent(database)
        async with database.connection() as connection:
            [relay] = (await relay_status(connection)).relays
            assert relay.lanes == 8
    assert [record.version for record in read_topic(kafka_settings.bootstrap_servers, topic)] == [1, 2]
    report = await verify(shop, kafka_settings, topics=[topic])
    assert {kind for kind, tally in report.tallies.items() if tally.events} == set[Kind]()
    assert report.events == 2

    assert await migrate_down(shop, BACKBONE) == REVISIONS
    assert await migrate_up(shop, BACKBONE) == REVISIONS
    assert public_part(postgres_server, shop) == before
    assert await rows_in_public(admin) == OWN_TABLES


async def test_two_schemas_of_one_database_are_separate(
    shop: PostgresSettings, club: PostgresSettings, connect: Connect, topic: str
) -> None:
    await migrate_up(shop, BACKBONE)
    of_shop, of_club = connect(shop), connect(club)
    assert await pending_migrations(of_club, BACKBONE) == REVISIONS
    await migrate_up(club, BACKBONE)
    await put_events(of_shop, topic, ["a"])
    assert len(await rows_of(of_shop)) == 1
    assert await rows_of(of_club) == []
    async with of_shop.sessions() as first, of_club.sessions() as second:
        assert await IdempotencyService(first).try_lock("k")
        assert await IdempotencyService(second).try_lock("k"), "the keys of two products are two locks"


async def test_notification_is_received_only_in_its_schema(
    shop: PostgresSettings, club: PostgresSettings, connect: Connect
) -> None:
    for settings in (shop, club):
        await migrate_up(settings, BACKBONE)
    heard: dict[str, set[str]] = {"shop": set(), "user": set()}
    listeners = [Listener(connect(settings), heard[settings.schema_name].update) for settings in (shop, club)]
    notifiers = [Notifier(connect(settings)) for settings in (shop, club)]
    for one in (*listeners, *notifiers):
        await one.start()
    for one in listeners:
        await one.listening.wait()

    async def all_heard() -> bool:
        return all(heard.values())

    notifiers[0].notify(["of shop"])
    notifiers[1].notify(["of club"])
    await eventually("both notifications", all_heard)
    for one in (*listeners, *notifiers):
        await one.stop()
    assert heard == {"shop": {"of shop"}, "user": {"of club"}}


async def test_relays_are_woken_by_notifications_of_their_schema_only(
    shop: PostgresSettings, connect: Connect, kafka_settings: KafkaSettings, topic: str
) -> None:
    await migrate_up(shop, BACKBONE)
    database = connect(shop)
    # No poll and no heartbeat occurs during the test.
    settings = RelaySettings(poll_interval=3_600, lease_s=3_600)
    async with running(Relay(database, kafka_settings, settings)):
        await eventually("all lanes", lambda: has_lanes(database, 8))
        await put_events(database, topic, ["a"])
        notifier = Notifier(database)
        await notifier.start()
        notifier.notify(["a"])
        await wait_until_all_sent(database)
        await notifier.stop()
        async with database.connection() as connection:
            await request_lanes(connection, 16, by="suite")
        await eventually("more lanes", lambda: has_lanes(database, 16))


async def has_lanes(database: Database, lanes: int) -> bool:
    async with database.connection() as connection:
        status = await relay_status(connection)
    return sum(relay.lanes for relay in status.relays) == lanes


async def test_sweep_of_one_schema_does_not_block_that_of_another(
    shop: PostgresSettings, club: PostgresSettings, connect: Connect
) -> None:
    for settings in (shop, club):
        await migrate_up(settings, BACKBONE)
    async with connect(shop).sessions() as busy, connect(club).connection() as connection:
        # Its locks in one schema are held until this transaction ends.
        await clean_up(executor_of(busy))
        async with connect(club.as_owner()).connection() as owner:
            for statement in OLD_ROWS:
                await owner.fetch(statement)
        assert await clean_up(connection) == (True, 1, True, 1, 1, 1, 1, 1)


async def clean_up(db: Executor) -> tuple[object, ...]:
    """Remove all expired rows and return which ones were removed."""
    steps = await retain(db, keep_h=0)
    swept = await sweep(db, IdempotencySettings(ttl_h=1e-9))
    kept = RetentionSettings(commands_h=10, tasks_h=10, consumed_events_h=10, dead_letters_h=10)
    removed = await remove_old_records(db, kept, key_ttl_h=1)
    return (
        bool(steps),
        swept.claims,
        swept.slots > 0,
        removed.commands,
        removed.tasks,
        removed.consumed_events,
        removed.dead_letters,
        removed.keys,
    )


async def test_sql_script_and_migrations_create_equal_schemas(
    shop: PostgresSettings, postgres_server: LocalPostgres, admin: asyncpg.Connection
) -> None:
    printed = relaybox(shop, "migrate", "sql")
    assert printed.stdout == schema_script(BACKBONE, schema="shop")
    await admin.execute(printed.stdout)
    # No migration is left to apply; the rights are granted.
    assert await migrate_up(shop, BACKBONE) == []
    made = dump_schema(postgres_server, shop)
    await admin.execute("DROP SCHEMA shop CASCADE")
    await migrate_up(shop, BACKBONE)
    assert dump_schema(postgres_server, shop) == made
    assert public_part(postgres_server, shop) == []


async def test_migrate_up_refuses_to_abandon_tables_in_another_schema(
    empty_postgres_settings: PostgresSettings, shop: PostgresSettings
) -> None:
    await migrate_up(shop, BACKBONE)
    chosen = {"schema_name", *empty_postgres_settings.model_fields_set}
    unset = PostgresSettings.model_construct(chosen - {"schema_name"}, **empty_postgres_settings.model_dump())
    with pytest.raises(MigrationFailed, match=r"another schema \(shop\); set POSTGRES_SCHEMA"):
        await migrate_up(unset, BACKBONE)
    # A deliberate second installation, and an upgrade of it.
    assert await migrate_up(unset.model_copy(update={"schema_name": "public"}), BACKBONE) == REVISIONS
    assert await migrate_up(unset, BACKBONE) == []


@pytest.mark.parametrize("kind", ["up", "down"])
async def test_migration_of_locks_refuses_a_function_that_lacks_its_lock(
    empty_postgres_settings: PostgresSettings, admin: asyncpg.Connection, kind: str
) -> None:
    await migrate_up(empty_postgres_settings, BACKBONE)
    statement = (BACKBONE.location / f"versions/0007_locks_per_schema.{kind}.sql").read_text(encoding="utf-8")
    if kind == "down":
        await admin.execute(statement)
    with pytest.raises(asyncpg.RaiseError, match="does not take its lock as it was created"):
        await admin.execute(statement)


async def test_migrate_down_in_a_missing_schema_removes_nothing(shop: PostgresSettings) -> None:
    assert await migrate_down(shop, BACKBONE) == []


def test_invalid_schema_name_is_refused_in_one_line(
    empty_postgres_settings: PostgresSettings,
) -> None:
    odd = empty_postgres_settings.model_copy(update={"schema_name": 'My "Shop"'})
    refused = relaybox(odd, "migrate", "up")
    assert (refused.returncode, refused.stdout) == (1, "")
    (line,) = refused.stderr.splitlines()
    assert line.startswith("error: POSTGRES_SCHEMA: must be a plain name")


def relaybox(settings: PostgresSettings, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "POSTGRES_HOST": settings.host,
        "POSTGRES_PORT": str(settings.port),
        "POSTGRES_DB": settings.db,
        "POSTGRES_SCHEMA": settings.schema_name,
    }
    program = [sys.executable, "-c", "from relaybox.cli import app; app()", *words]
    return subprocess.run(program, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("search_path", ["public", "shop"])
async def test_autogenerate_ignores_only_tables_of_the_librarys_schema(
    shop: PostgresSettings,
    admin: asyncpg.Connection,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    search_path: str,
) -> None:
    await migrate_up(shop, BACKBONE)
    for schema in ("public", "shop"):
        await admin.execute(f"CREATE TABLE {schema}.forgotten (id INT)")
    await admin.execute("CREATE TABLE public.domain_events (id INT)")
    await admin.execute("GRANT USAGE ON SCHEMA shop TO PUBLIC")
    monkeypatch.setenv("POSTGRES_SCHEMA", "shop")

    application = connect(shop.as_owner().model_copy(update={"schema_name": search_path}))
    async with application.engine.connect() as connection:
        found = await connection.run_sync(proposed)
    assert found == {("shop", "forgotten"), ("public", "forgotten"), ("public", "domain_events")}


def proposed(connection: Connection) -> set[tuple[str, str]]:
    """Return schema and name of the tables that autogenerate would drop if there were no model."""
    with EnvironmentContext(Config(), None) as env:  # pyright: ignore[reportArgumentType] - of no script
        env.configure(connection=connection, include_name=include_name, include_schemas=True)
        differences = compare_metadata(env.get_context(), MetaData())
    default = connection.dialect.default_schema_name
    return {(one.schema or default, one.name) for kind, one, *_ in differences if kind == "remove_table"}
