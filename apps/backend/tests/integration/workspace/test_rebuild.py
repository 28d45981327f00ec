"""`backend rebuild workspace`: rows equal the state that their events describe, and can be rebuilt."""

import asyncio
import os
import sys
from uuid import UUID, uuid4

import asyncpg
import pytest
from backend.rebuilding import Difference, DifferenceKind, HistoryUnreadable, RebuildReport, rebuild
from backend.workspace import NodeProjection
from relaybox.db import Database
from relaybox.events import EventVersionUnknown
from relaybox.settings import PostgresSettings

from tests.fixtures.event_publishing import insert_event
from tests.fixtures.studio import Studio

TABLES = ("nodes", "chapters", "versions", "threads", "replies", "grants", "links")
TRUNCATE = f"TRUNCATE {', '.join(f'workspace_{table}' for table in TABLES)}"


async def run(database: Database, *, write: bool) -> tuple[RebuildReport, list[Difference]]:
    found: list[Difference] = []
    report = await rebuild(database, NodeProjection(), write=write, on_difference=found.append)
    return report, found


async def checksum(superuser: asyncpg.Connection) -> dict[str, str]:
    """Return a checksum of all rows of every table, independent of their physical order."""
    query = "SELECT md5(coalesce(string_agg(one::text, '|' ORDER BY one::text), '')) FROM workspace_{} AS one"
    return {table: await superuser.fetchval(query.format(table)) for table in TABLES}


async def story(studio: Studio) -> UUID:
    """Create a tree with every kind of event that a node can have; return its root."""
    root = await studio.teacher.node("workspace", "Club")
    here = await studio.teacher.node("folder", "a", root)
    there = await studio.teacher.node("folder", "b", root, layout={"x": 0.1})
    study = await studio.teacher.node("study", "Endgames – Türme", here)
    path = f"/nodes/{study['id']}"
    await studio.teacher.call("POST", f"{path}/move", {"parent_id": there["id"]}, match=1)
    await studio.teacher.call("PATCH", path, {"title": "Türme", "visibility": "public"}, match=2)
    return UUID(root["id"])


async def test_rebuild_changes_no_rows_that_equal_their_events(studio: Studio, database: Database) -> None:
    await story(studio)
    report, found = await run(database, write=True)
    assert (report.aggregates, report.differences, found) == (4, 0, [])


async def test_rebuild_restores_truncated_tables_byte_for_byte(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    await story(studio)
    before = await checksum(superuser)
    await superuser.execute(TRUNCATE)
    report, found = await run(database, write=True)
    assert (report.differences, report.repaired) == (4, 4)
    assert {one.kind for one in found} == {DifferenceKind.MISSING}
    assert await checksum(superuser) == before


async def test_rebuild_names_and_repairs_a_changed_row(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    root = await story(studio)
    before = await checksum(superuser)
    await superuser.execute("UPDATE workspace_nodes SET title = 'x', owner_id = 'me' WHERE id = $1", root)
    report, [found] = await run(database, write=False)
    assert (found.aggregate_id, found.kind, found.parts) == (root, DifferenceKind.DIFFERENT, ("nodes",))
    assert (report.differences, report.repaired) == (1, 0)
    await run(database, write=True)
    assert await checksum(superuser) == before


async def test_rebuild_removes_rows_without_events(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    await story(studio)
    before = await checksum(superuser)
    await superuser.execute(
        "INSERT INTO workspace_grants VALUES ($1, 'me', 'admin', 'me', now(), now())", uuid4()
    )
    _, [found] = await run(database, write=True)
    assert (found.kind, found.parts) == (DifferenceKind.EXTRA, ("grants",))
    assert await checksum(superuser) == before


async def test_rebuild_stops_at_a_gap_in_the_events(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    root = await story(studio)
    await superuser.execute("ALTER TABLE domain_events DISABLE TRIGGER ALL")
    await superuser.execute(
        "UPDATE domain_events SET aggregate_version = 2 WHERE aggregate_id = $1", str(root)
    )
    with pytest.raises(HistoryUnreadable, match=r"lacks its event of version 1"):
        await run(database, write=True)


async def test_event_of_an_unknown_version_stops_the_rebuild(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    root = await story(studio)
    await insert_event(
        database,
        event_type="node.updated",
        event_version=2,
        aggregate_type="WORKSPACE_NODE",
        aggregate_id=str(root),
        version=len(await studio.stream(root)) + 1,
        payload={"name": "secret"},
        metadata={"user_id": "teacher"},
    )
    before = await checksum(superuser)
    with pytest.raises(EventVersionUnknown, match=r"of type node\.updated has version 2"):
        await run(database, write=True)
    assert await checksum(superuser) == before


async def test_rebuild_exits_with_1_until_every_difference_is_repaired(
    studio: Studio, postgres_settings: PostgresSettings, superuser: asyncpg.Connection
) -> None:
    root = await story(studio)
    await superuser.execute("DELETE FROM workspace_nodes WHERE id = $1", root)
    assert await _command(postgres_settings) == (1, f"{root} MISSING in nodes")
    assert await _command(postgres_settings, "--write") == (0, f"{root} MISSING in nodes, repaired")
    assert await _command(postgres_settings) == (0, "4 nodes, 6 events: 0 differ, 0 repaired")


async def _command(settings: PostgresSettings, *arguments: str) -> tuple[int | None, str]:
    environment = {
        **os.environ,
        "POSTGRES_HOST": settings.host,
        "POSTGRES_PORT": str(settings.port),
        "POSTGRES_DB": settings.db,
        "POSTGRES_USER": settings.user,
        "POSTGRES_PASSWORD": settings.password.get_secret_value(),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from backend.cli import app; app()",
        "rebuild",
        "workspace",
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode().splitlines()[0]
