"""Measure imports, listing and moving of the workspace over HTTP.

``--part import``: a file of 150 games, which the API imports within the request, and a file of 500 games,
which a task imports, from the request to the report. For comparison the package ``chess`` only parses the
same files. The three take turns; a ratio compares times of the same round. ``--part tree``: reading a tree of
10,000 nodes in one response, and moving the tree below another node and back.
"""

import argparse
import asyncio
import io
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final
from uuid import UUID

import chess.pgn
import httpx2
from _games import moves_in, pgn_file
from _stage import WRITER, running, servers, show, token
from backend.api import WORKSPACE_PREFIX
from backend.workspace.core import CommandTransaction, lock_parent
from backend.workspace.nodes import add_node
from relaybox.commands import Caller
from relaybox.db import Database
from relaybox.settings import PostgresSettings, load_settings
from shared_types.workspace import NodeKind, Role
from shared_types.workspace_api import CreateNode
from sqlalchemy.ext.asyncio import AsyncSession

PARTS: Final = ("import", "tree")
AT_ONCE: Final = 150
BY_WORKER: Final = 500
NODES_MAX: Final = 10_000
FOLDERS: Final = 100
_LOOK_S: Final = 0.02
_PGN: Final = {"Content-Type": "application/x-chess-pgn"}


class Subject:
    """A PGN file, and the seconds to import and to parse it, by round."""

    def __init__(self, games: int) -> None:
        self.games, self.text = games, pgn_file(games)
        self.moves = moves_in(self.text)
        self.imported_s: list[float] = []
        self.parsed_s: list[float] = []

    def figures(self, prefix: str = "") -> dict[str, float]:
        """Return the medians of the rounds."""
        imported_s, parsed_s = statistics.median(self.imported_s), statistics.median(self.parsed_s)
        ratios = [parse / whole for parse, whole in zip(self.parsed_s, self.imported_s, strict=True)]
        return {
            f"{prefix}games_per_s": round(self.games / imported_s, 1),
            f"{prefix}moves_per_s": round(self.moves / imported_s),
            f"{prefix}parse_only_games_per_s": round(self.games / parsed_s, 1),
            f"{prefix}ratio_parse": round(statistics.median(ratios), 2),
        }


def parse(subject: Subject) -> float:
    """Return the seconds that the package ``chess`` takes to parse the file."""
    handle, began, games = io.StringIO(subject.text), time.perf_counter(), 0
    while chess.pgn.read_game(handle) is not None:
        games += 1
    assert games == subject.games
    return time.perf_counter() - began


async def import_file(client: httpx2.AsyncClient, subject: Subject) -> float:
    """Import the file; return the seconds until the report, which is the response or the result of a task."""
    began = time.perf_counter()
    answer = await client.post("/studies/import-pgn", content=subject.text.encode(), headers=_PGN)
    answer.raise_for_status()
    report = answer.json()
    while answer.status_code == 202 and report.get("status") != "COMPLETED":
        await asyncio.sleep(_LOOK_S)
        state = (await client.get(answer.headers["Location"].removeprefix(WORKSPACE_PREFIX))).json()
        assert state["status"] != "FAILED", state
        report = {"status": state["status"], **(state["result"] or {})}
    took_s = time.perf_counter() - began
    assert (report["chapters"], report["skipped_count"]) == (subject.games, 0)
    return took_s


async def measure_imports(rounds: int) -> dict[str, Any]:
    """Measure imports by the API and by the worker, and parsing by the package ``chess``, in turns."""
    at_once, by_worker = Subject(AT_ONCE), Subject(BY_WORKER)
    with ExitStack() as stack:
        port = stack.enter_context(running(["backend"], SERVICE_TYPE="api-gateway", KAFKA_PORT="1"))
        stack.enter_context(running(["backend"], SERVICE_TYPE="workspace-worker", KAFKA_PORT="1"))
        async with client_of(port) as client:
            for number in range(-1, rounds):
                for subject in (at_once, by_worker):
                    # Every second round parses first; the first round is a warm-up and does not count.
                    parsed_s = parse(subject) if number % 2 else 0.0
                    imported_s = await import_file(client, subject)
                    parsed_s = parsed_s or parse(subject)
                    if number >= 0:
                        subject.parsed_s.append(parsed_s)
                        subject.imported_s.append(imported_s)
    return at_once.figures() | by_worker.figures("worker_")


async def seed_tree(database: Database) -> tuple[UUID, UUID, UUID]:
    """Create two workspaces, the first with a folder as the root of 10,000 nodes; return the three ids."""
    here, there = [await _add(database, None, NodeKind.WORKSPACE, [title]) for title in ("Here", "There")]
    [top] = await _add(database, here[0], NodeKind.FOLDER, ["Top"])
    folders = await _add(database, top, NodeKind.FOLDER, [f"Folder {number}" for number in range(FOLDERS)])
    left = NODES_MAX - 1 - FOLDERS
    for place, folder in enumerate(folders):
        count = left // (FOLDERS - place)
        left -= count
        await _add(database, folder, NodeKind.STUDY, [f"Study {number}" for number in range(count)])
    return here[0], there[0], top


async def _add(
    database: Database, parent_id: UUID | None, kind: NodeKind, titles: Sequence[str]
) -> list[UUID]:
    async def add(db: AsyncSession) -> list[UUID]:
        tx = CommandTransaction(db, Caller(actor=WRITER, source_service="bench"))
        parent = None if parent_id is None else await lock_parent(tx, parent_id, Role.EDITOR)
        nodes = [
            CreateNode(kind=kind, title=title, parent_id=parent_id, position=position)
            for position, title in enumerate(titles)
        ]
        made = [await add_node(tx, node, parent) for node in nodes]
        await tx.record("BenchNodes", made[0], {})
        return made

    return await database.run_in_transaction(add, isolation="READ COMMITTED")


async def measure_tree(times: int) -> dict[str, Any]:
    """Return the milliseconds of reading 10,000 nodes and of moving them, measured by the client."""
    database = Database(load_settings(PostgresSettings), application_name="bench-seed")
    here, there, top = await seed_tree(database)
    await database.close()
    listed_ms: list[float] = []
    moved_ms: list[float] = []
    with running(["backend"], SERVICE_TYPE="api-gateway", KAFKA_PORT="1") as port:
        async with client_of(port) as client:
            for number in range(-2, times):
                parent = there if number % 2 else here
                listed, nodes = await _timed(client, "GET", f"/nodes/tree?root_id={top}")
                assert nodes.count(b'"depth"') == NODES_MAX
                match = {"If-Match": "*"}
                body = {"parent_id": str(parent)}
                moved, _ = await _timed(client, "POST", f"/nodes/{top}/move", json=body, headers=match)
                # The first two requests are a warm-up and are not counted.
                if number >= 0:
                    listed_ms.append(listed)
                    moved_ms.append(moved)
    return {
        "tree_10k_nodes_list_ms": round(statistics.median(listed_ms), 1),
        "move_subtree_10k_ms": round(statistics.median(moved_ms), 1),
    }


async def _timed(client: httpx2.AsyncClient, method: str, path: str, **options: Any) -> tuple[float, bytes]:
    began = time.perf_counter()
    answer = await client.request(method, path, **options)
    took_ms = (time.perf_counter() - began) * 1_000
    answer.raise_for_status()
    return took_ms, answer.content


def client_of(port: int) -> httpx2.AsyncClient:
    """Create a client with the writer's token."""
    return httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{port}{WORKSPACE_PREFIX}",
        headers={"Authorization": f"Bearer {token()}"},
        timeout=120,
        trust_env=False,
    )


async def main(parts: Sequence[str], rounds: int, times: int) -> None:
    """Run the benchmark, and print the figures."""
    figures: dict[str, Any] = {}
    async with servers(kafka=False):
        if "import" in parts:
            figures |= await measure_imports(rounds)
        if "tree" in parts:
            figures |= await measure_tree(times)
    show("The workspace over HTTP", [(name, f"{value:,}") for name, value in figures.items()], figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument(
        "--part", choices=PARTS, action="append", help="part to run; may be repeated; by default both"
    )
    parser.add_argument("--short", action="store_true", help="one round, five times")
    given = parser.parse_args()
    sizes = (1, 5) if given.short else (given.rounds, given.times)
    asyncio.run(main(given.part or PARTS, *sizes))
