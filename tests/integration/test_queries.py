"""Every query of the ``.sql`` files can be prepared on a migrated PostgreSQL and is used."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from backend.migrations import ALL
from relaybox.commands import Domain
from relaybox.commands._record import Statements
from relaybox.db import Database, Migrations, Queries, load_queries
from relaybox.idempotency import STORE_PARTS
from relaybox.local import LocalPostgres
from relaybox.settings import PostgresSettings
from relaybox.testing import Databases, run_in_own_loop, settings_for

ROOT = Path(__file__).parents[2]
SOURCES = {"relaybox": ROOT / "packages/relaybox/src", "backend": ROOT / "apps/backend/src"}
_OPEN = "-- include:"
_PART = "-- Part of"


@pytest.fixture(scope="session")
def migrations() -> tuple[Migrations, ...]:
    return ALL


@pytest.fixture(scope="module")
def postgres_settings(
    postgres_server: LocalPostgres, migrations: tuple[Migrations, ...], databases: Databases
) -> Iterator[PostgresSettings]:
    """Return the settings of one database for all tests: preparing a query changes nothing."""
    name = run_in_own_loop(databases.acquire(migrations))
    yield settings_for(postgres_server, name)
    run_in_own_loop(databases.release(migrations, name))


def files() -> Iterator[tuple[str, Path]]:
    """Return package and path of each SQL file with queries, without migrations."""
    for source in SOURCES.values():
        for path in sorted(source.rglob("*.sql")):
            if "versions" not in path.parts:
                yield ".".join(path.parent.relative_to(source).parts), path


FILES = list(files())
QUERIES = [
    pytest.param(queries, name, id=f"{package}:{path.name}:{name}")
    for package, path in FILES
    for queries in [load_queries(package, path.name)]
    for name in queries
]


def domains() -> Iterator[Domain]:
    """Return every domain that a module declares."""
    for package in SOURCES:
        for path in SOURCES[package].rglob("*.py"):
            if "commands" in path.read_text() and "Domain(" in path.read_text():
                name = ".".join(path.relative_to(SOURCES[package]).with_suffix("").parts)
                yield from (
                    one for one in vars(importlib.import_module(name)).values() if isinstance(one, Domain)
                )


@pytest.mark.parametrize(("queries", "name"), QUERIES)
async def test_every_query_can_be_prepared(database: Database, queries: Queries, name: str) -> None:
    text = queries[name]
    assert text.startswith("-- "), "a query begins with a comment of its purpose"
    if _OPEN in text or text.startswith(_PART):
        pytest.skip("has an include, or is a part; tests prepare the completed statement")
    async with database.connection() as connection:
        for own in (queries[one] for one in queries if "CREATE TEMPORARY TABLE" in queries[one]):
            await connection.fetch(own)
        await connection.prepare(text)


async def test_statements_of_every_domain_can_be_prepared(
    database: Database,
) -> None:
    found = [*domains()]
    assert found, "no module declares a domain"
    async with database.connection() as connection:
        for domain in found:
            statements = Statements(domain)
            for text in (statements.load_text, statements.create_text, statements.advance_text):
                assert _OPEN not in text
                await connection.prepare(text)


async def test_statement_that_stores_a_response_can_be_prepared(database: Database) -> None:
    text = load_queries("relaybox.idempotency", "idempotency.sql").including("keep", **STORE_PARTS)
    async with database.connection() as connection:
        await connection.prepare(text)


async def test_malformed_query_is_refused(database: Database) -> None:
    async with database.connection() as connection:
        with pytest.raises(asyncpg.UndefinedColumnError):
            await connection.prepare("SELECT nothing_of_that_name FROM domain_events")


@pytest.mark.parametrize(
    ("package", "path"), FILES, ids=[f"{package}:{path.name}" for package, path in FILES]
)
def test_every_query_is_used(package: str, path: Path) -> None:
    names = {
        node.value
        for module in path.parent.rglob("*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    if {"load", "create", "advance"} <= set(load_queries(package, path.name)):
        names |= {"load", "create", "advance"}  # used by SnapshotQueries.from_mapping
    unused = set(load_queries(package, path.name)) - names
    assert not unused, f"unused queries: {', '.join(sorted(unused))}; delete them"
