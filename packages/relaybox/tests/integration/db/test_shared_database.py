"""A database that the library shares with an application that has its own Alembic."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from relaybox.db import TABLES, Database, include_name
from relaybox.settings import PostgresSettings
from sqlalchemy import Connection, MetaData, inspect, text


def proposed(connection: Connection) -> set[tuple[str, str]]:
    """Return what autogenerate proposes for an application without a model, as operation and table."""
    context = MigrationContext.configure(connection, opts={"include_name": include_name})
    differences = compare_metadata(context, MetaData())
    return {(kind, one.name) for kind, one, *_ in differences if kind.endswith("_table")}


async def test_autogenerate_drops_only_tables_of_the_application(
    postgres_settings: PostgresSettings,
) -> None:
    database = Database(postgres_settings.as_owner())
    async with database.engine.connect() as connection:
        await connection.execute(text("CREATE TABLE forgotten (id int)"))
        found = await connection.run_sync(proposed)
        await connection.rollback()
    await database.close()
    assert found == {("remove_table", "forgotten")}


async def test_list_of_tables_equals_the_migrated_tables(database: Database) -> None:
    async with database.engine.connect() as connection:
        found = await connection.run_sync(lambda one: inspect(one).get_table_names())
    assert set(found) == TABLES
