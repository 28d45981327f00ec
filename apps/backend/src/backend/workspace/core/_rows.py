"""Write the rows that the events of a command have changed to their tables."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import to_json
from relaybox.db import Executor, load_queries

from backend.workspace.projection import NodeState

__all__ = ("NODES", "TABLES", "Rows", "collect_changes", "write_rows")

_SQL: Final = load_queries(__package__ or "backend.workspace.core", "rows.sql")
NODES: Final = "nodes"
#: The key columns of each table whose rows belong to a node, by the table's name in :class:`NodeState`.
TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "chapters": ("id",),
    "versions": ("node_id", "number"),
    "threads": ("id",),
    "replies": ("id",),
    "grants": ("node_id", "user_id"),
    "links": ("id",),
}

Rows = dict[str, list[BaseModel]]


def collect_changes(before: NodeState, after: NodeState, *, written: Rows, deleted: Rows) -> None:
    """Collect the rows of one node that differ between *before* and *after*.

    New and changed rows are added to *written*, missing rows to *deleted*; both are lists of rows by table.
    Rows are immutable and compared by identity: the same object is an unchanged row.
    """
    if after.node is not before.node:
        row = after.node or before.node
        assert row is not None
        (written if after.node else deleted).setdefault(NODES, []).append(row)
    for table in TABLES:
        old: Mapping[Any, BaseModel] = getattr(before, table)
        new: Mapping[Any, BaseModel] = getattr(after, table)
        if rows := [row for key, row in new.items() if old.get(key) is not row]:
            written.setdefault(table, []).extend(rows)
        if rows := [row for key, row in old.items() if key not in new]:
            deleted.setdefault(table, []).extend(rows)


_WRITE: Final[Mapping[str, str]] = {
    NODES: _SQL["write_nodes"],
    "chapters": _SQL["write_chapters"],
    "versions": _SQL["write_versions"],
    "threads": _SQL["write_threads"],
    "replies": _SQL["write_replies"],
    "grants": _SQL["write_grants"],
    "links": _SQL["write_links"],
}
_DELETE: Final[Mapping[str, str]] = {
    NODES: _SQL["delete_nodes"],
    "chapters": _SQL["delete_chapters"],
    "versions": _SQL["delete_versions"],
    "threads": _SQL["delete_threads"],
    "replies": _SQL["delete_replies"],
    "grants": _SQL["delete_grants"],
    "links": _SQL["delete_links"],
}


async def write_rows(executor: Executor, *, written: Rows, deleted: Rows) -> None:
    """Delete and write rows, with one statement for the deletions and one for the writes of each table.

    Raises:
        asyncpg.IntegrityConstraintViolationError: A constraint rejects a row.
    """
    for table, rows in deleted.items():
        keys = TABLES.get(table, ("id",))
        documents = [{key: getattr(row, key) for key in keys} for row in rows]
        await executor.fetch(_DELETE[table], to_json(documents).decode())
    for table, rows in written.items():
        await executor.fetch(_WRITE[table], _document(rows))


def _document(rows: Iterable[BaseModel]) -> str:
    return b"".join((b"[", b",".join(row.model_dump_json().encode() for row in rows), b"]")).decode()
