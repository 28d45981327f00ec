"""Measure ``backend rebuild workspace`` on truncated tables, and compare the rebuilt rows.

Commands write folders of studies with chapters, moves, versions, discussions and grants. Then all tables are
truncated, and the command runs in a separate process, as an operator runs it.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
from _stage import servers, show
from backend.workspace.core import CommandTransaction
from relaybox.commands import Caller
from relaybox.db import Database
from relaybox.local import LocalPostgres
from relaybox.settings import PostgresSettings, load_settings
from shared_types.events import EventTarget
from shared_types.workspace import NodeKind, WorkspaceEvent
from sqlalchemy.ext.asyncio import AsyncSession

TABLES: Final = ("nodes", "chapters", "versions", "threads", "replies", "grants", "links")
CHECKSUM: Final = "SELECT md5(string_agg(md5(one::text), '' ORDER BY one::text)) FROM workspace_{} AS one"
CHAPTERS: Final = 8
MOVES: Final = 28
_SQUARES: Final = [f"{file}{rank}" for file in "abcdefgh" for rank in range(1, 9)]


async def fill(database: Database, events: int) -> int:
    """Create studies until at least *events* events are recorded; return the number of events."""
    caller = Caller(actor="teacher", source_service="bench")
    written = 0
    parent = None
    for number in range(1_000_000):
        if written >= events:
            break
        if number % 50 == 0:
            parent = await _made(database, caller, NodeKind.FOLDER if parent else NodeKind.WORKSPACE, parent)
            written += 1

        async def make(db: AsyncSession, within: UUID | None = parent, name: int = number) -> int:
            tx = CommandTransaction(db, caller)
            await _study(tx, within, name)
            await tx.record("BenchStudy", uuid4(), {})
            return len(tx.events)

        written += await database.run_in_transaction(make, isolation="READ COMMITTED")
    return written


async def _made(database: Database, caller: Caller, kind: NodeKind, parent: UUID | None) -> UUID:
    node_id = uuid4()

    async def make(db: AsyncSession) -> None:
        tx = CommandTransaction(db, caller)
        await tx.emit(WorkspaceEvent.NODE_CREATED, node_id, _node(kind, "Folder", parent))
        await tx.record("BenchFolder", node_id, {})

    await database.run_in_transaction(make, isolation="READ COMMITTED")
    return node_id


def _node(kind: NodeKind, title: str, parent: UUID | None) -> dict[str, Any]:
    return {
        "kind": kind,
        "parent_id": None if parent is None else str(parent),
        "owner_id": "teacher",
        "title": title,
        "position": 0,
        "visibility": "shared" if parent is None else None,
    }


async def _study(tx: CommandTransaction, parent: UUID | None, number: int) -> None:
    study = uuid4()
    await tx.emit(WorkspaceEvent.STUDY_CREATED, study, _node(NodeKind.STUDY, f"Study {number}", parent))
    told = await tx.emit(WorkspaceEvent.PGN_IMPORTED, study, {"chapters": CHAPTERS, "skipped": []})
    chapters = [str(uuid4()) for _ in range(CHAPTERS)]
    for position, chapter in enumerate(chapters):
        payload = {"chapter_id": chapter, "position": position, "title": "A – B", "headers": {"White": "A"}}
        moves = {"moves": _line(60)}
        target = (EventTarget.CHAPTER, chapter)
        await tx.emit(
            WorkspaceEvent.CHAPTER_CREATED, study, {**payload, "moves": moves}, target=target, cause=told
        )
    for uci in random.sample([a + b for a in _SQUARES for b in _SQUARES if a != b], MOVES):
        payload = {"chapter_id": random.choice(chapters), "move_path": uci, "annotation": {"text": "?!"}}
        await tx.emit(WorkspaceEvent.MOVE_ADDED, study, payload)
    await tx.emit(WorkspaceEvent.STUDY_SNAPSHOT_CREATED, study, {"number": 1, "label": "first"})
    await _talk(tx, study)
    await tx.emit(WorkspaceEvent.ACL_SHARED, study, {"user_id": f"pupil-{number}", "role": "editor"})


async def _talk(tx: CommandTransaction, study: UUID) -> None:
    for _ in range(2):
        thread = str(uuid4())
        said = {"thread_id": thread, "kind": "question", "body": "Why not 24. Rd7?"}
        await tx.emit(WorkspaceEvent.DISCUSSION_THREAD_CREATED, study, said)
        for _ in range(4):
            reply = {
                "reply_id": str(uuid4()),
                "thread_id": thread,
                "depth": 1,
                "body": "It hangs the knight.",
            }
            await tx.emit(WorkspaceEvent.DISCUSSION_REPLY_ADDED, study, reply)


def _line(plies: int) -> list[dict[str, Any]]:
    return [
        {"parent": ply - 1, "uci": random.choice(_SQUARES) + random.choice(_SQUARES)} for ply in range(plies)
    ]


async def checksums(connection: Any) -> dict[str, str]:
    """Return a hash of all rows of every table, independent of their order."""
    return {table: await connection.fetchval(CHECKSUM.format(table)) for table in TABLES}


def rebuild() -> tuple[dict[str, Any], float]:
    """Run the command; return its report and its seconds."""
    began = time.perf_counter()
    command = [sys.executable, "-c", "from backend.cli import app; app()"]
    done = subprocess.run(
        [*command, "rebuild", "workspace", "--write", "--json"], stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout.splitlines()[-1]), time.perf_counter() - began


async def connected(server: LocalPostgres) -> Any:
    """Open a connection as the superuser, which may truncate tables."""
    return await asyncpg.connect(
        host=server.host,
        port=server.port,
        user=server.superuser,
        password=server.superuser_password,
        database=load_settings(PostgresSettings).db,
    )


async def main(events: int) -> None:
    """Run the benchmark, and print the figures."""
    random.seed(1)
    async with servers(kafka=False) as server:
        database = Database(load_settings(PostgresSettings), application_name="bench")
        written = await fill(database, events)
        await database.close()
        connection = await connected(server)
        before = await checksums(connection)
        await connection.execute(f"TRUNCATE {', '.join(f'workspace_{table}' for table in TABLES)}")
        report, took_s = await asyncio.to_thread(rebuild)
        same = await checksums(connection) == before
        await connection.close()
    figures = {
        "events": written,
        "nodes": report["nodes"],
        "rebuild_s": round(took_s, 1),
        "events_per_s": round(written / took_s),
        "identical": same,
    }
    show("Tables of the workspace rebuilt from events", [(k, f"{v:,}") for k, v in figures.items()], figures)
    if not same or report["events"] != written:
        raise SystemExit("the rebuilt rows differ from the original rows: this run is not valid")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    asyncio.run(main(5_000 if options.short else options.events))
