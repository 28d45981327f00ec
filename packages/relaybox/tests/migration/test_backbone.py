"""The library's own migrations, without those of an application."""

from itertools import pairwise

from relaybox.db import BACKBONE, Database, migrate_down, migrate_up, pending_migrations
from relaybox.local import LocalPostgres
from relaybox.settings import PostgresSettings

from tests.fixtures.both_postgres import dump_schema

REVISIONS = [one.revision for one in BACKBONE.script().walk_revisions()][::-1]


async def test_up_down_and_up_again_gives_the_same_schema(
    postgres_server: LocalPostgres, empty_postgres_settings: PostgresSettings
) -> None:
    settings = empty_postgres_settings
    assert await migrate_up(settings, BACKBONE) == REVISIONS
    first = dump_schema(postgres_server, settings)
    assert await migrate_down(settings, BACKBONE) == REVISIONS
    assert await migrate_up(settings, BACKBONE) == REVISIONS
    assert dump_schema(postgres_server, settings) == first


async def test_second_upgrade_applies_nothing(postgres_settings: PostgresSettings) -> None:
    assert await migrate_up(postgres_settings, BACKBONE) == []


async def test_missing_migrations_are_named_before_the_upgrade_only(
    empty_postgres_settings: PostgresSettings,
) -> None:
    database = Database(empty_postgres_settings)
    assert await pending_migrations(database, BACKBONE) == REVISIONS
    await migrate_up(empty_postgres_settings, BACKBONE)
    assert await pending_migrations(database, BACKBONE) == []
    await database.close()


async def test_lanes_cover_every_hash_once(database: Database) -> None:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT hash_min, hash_max FROM relay_lanes ORDER BY hash_min")
    bounds = [(row["hash_min"], row["hash_max"]) for row in rows]
    assert (bounds[0][0], bounds[-1][1]) == (-(2**31), 2**31 - 1)
    assert all(earlier[1] + 1 == later[0] for earlier, later in pairwise(bounds))
