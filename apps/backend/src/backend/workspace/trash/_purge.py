"""Purging: a batch of the bin leaves PostgreSQL, and every copy of its content with it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from relaybox.db import load_queries
from relaybox.events import erase
from relaybox_types.envelope import EventEnvelope
from shared_types.workspace import Visibility, WorkspaceEvent
from shared_types.workspace_bin_api import PurgeCounts

from backend.workspace.access import Access, access_of
from backend.workspace.core import CommandTransaction, lock_nodes, lock_roots
from backend.workspace.projection import AGGREGATE_TYPE
from backend.workspace.trash._bin import visibility_after_move

__all__ = ("PURGE_COMMAND", "PURGE_SQL", "count_purge", "purge_batch", "purge_node")

PURGE_SQL: Final = load_queries(__package__ or "backend.workspace.trash", "purge.sql")
PURGE_COMMAND: Final = "PurgeNode"
#: Nodes of one statement, so that a batch of any size stays below the time that one may take.
_NODES_MAX: Final = 100
_ASKED: Final = "purged from the bin"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    """What is below the root of a batch, locked."""

    #: The batch itself.
    node_ids: list[UUID]
    #: What was trashed below it before, on its own, with the visibility that holds there: it stays.
    apart: dict[UUID, Visibility]


async def purge_node(tx: CommandTransaction, node_id: UUID) -> PurgeCounts:
    """Purge what was trashed with a node, for good, if its owner asks for it.

    Raises:
        NodeNotFound, RoleMissing: who asks does not own the tree.
        NodeNotTrashed, NodeTrashedWithAncestor: it is no root of what was trashed together.
    """
    return await purge_batch(tx, await _lock(tx, node_id), reason=_ASKED)


async def count_purge(tx: CommandTransaction, node_id: UUID) -> PurgeCounts:
    """What :func:`purge_node` would do: it is done, counted and undone, and nothing is written.

    Raises:
        NodeNotFound, RoleMissing, NodeNotTrashed, NodeTrashedWithAncestor: as for :func:`purge_node`.
    """
    batch = await _lock_batch(tx, await _lock(tx, node_id))
    async with tx.db.begin_nested() as attempt:
        counts = await _erase(tx, batch, reason=_ASKED)
        await attempt.rollback()
    return counts


async def purge_batch(tx: CommandTransaction, access: Access, *, reason: str) -> PurgeCounts:
    """Purge the batch of a held root of one, whoever asks; *reason* goes on record and says nothing of it.

    First all is erased, then the purge is recorded, so that of the events this one keeps its content. What
    was trashed before below it moves up to the former parent, in the bin as it was: an event of its own,
    caused by the purge, so that its row stays what its own events make of it.
    """
    batch = await _lock_batch(tx, access)
    root = tx.node(access.node.id)
    counts = await _erase(tx, batch, reason=reason)
    payload = {"batch_id": str(root.trash_batch_id), "count": counts.nodes}
    purged = await tx.emit(WorkspaceEvent.NODE_PERMANENTLY_DELETED, root.id, payload)
    await lock_nodes(tx, *batch.apart)
    for node_id, visibility in batch.apart.items():
        await _move_up(tx, node_id, visibility, access, purged)
    await tx.record(PURGE_COMMAND, root.id, {})
    return counts


async def _lock(tx: CommandTransaction, node_id: UUID) -> Access:
    access = await lock_roots(tx, node_id)
    access.require_purging()
    access.require_trashed()
    return access


async def _lock_batch(tx: CommandTransaction, access: Access) -> _Batch:
    rows = await tx.executor.fetch(PURGE_SQL["trashed_batch"], access.node.id, access.visibility)
    # In their order, as everybody locks several nodes.
    for some in _pieces([row["id"] for row in rows]):
        await tx.executor.fetch(PURGE_SQL["lock_batch_nodes"], some)
    await lock_nodes(tx, access.node.id)
    return _Batch(
        node_ids=[row["id"] for row in rows if not row["apart"]],
        apart={row["id"]: Visibility(row["visibility"]) for row in rows if row["apart"]},
    )


def _pieces(node_ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    return (node_ids[start : start + _NODES_MAX] for start in range(0, len(node_ids), _NODES_MAX))


async def _erase(tx: CommandTransaction, batch: _Batch, *, reason: str) -> PurgeCounts:
    counts = await _drop_from_tasks(tx, batch)
    for some in _pieces(batch.node_ids):
        [rows] = await tx.executor.fetch(PURGE_SQL["delete_batch_nodes"], some)
        counts.update(**rows)
    # Last, and in one: relays wait for the rows of the outbox that it holds.
    erased = await erase(tx.db, AGGREGATE_TYPE, batch.node_ids, actor=tx.caller.actor, reason=reason)
    counts.update(
        events=erased.events, commands=erased.commands, tasks=erased.tasks, stored_answers=erased.answers
    )
    return PurgeCounts(**counts)


async def _drop_from_tasks(tx: CommandTransaction, batch: _Batch) -> Counter[str]:
    """Take away what tasks of other nodes have of the batch; those of its own are erased with their nodes."""
    fetch = tx.executor.fetch
    # None comes meanwhile: an export shares what it names, and an import holds where it is to stand.
    found = [
        row["id"]
        for some in _pieces(batch.node_ids)
        for row in await fetch(PURGE_SQL["find_tasks_of_nodes"], [str(one) for one in some])
    ]
    await fetch(PURGE_SQL["lock_tasks"], found)
    [ended] = await fetch(PURGE_SQL["end_imports"], found)
    own = frozenset(batch.node_ids)
    files = [
        row for row in await fetch(PURGE_SQL["drop_task_files"], found) if row["aggregate_id"] not in own
    ]
    return Counter(tasks=ended["tasks"] + len(files), commands=ended["commands"])


async def _move_up(
    tx: CommandTransaction, node_id: UUID, visibility: Visibility, access: Access, purged: EventEnvelope
) -> None:
    """Put *node_id* where the purged node of *access* stood."""
    node, parent_id = tx.node(node_id), access.node.parent_id
    above = access_of(access.chain[1:], None).visibility if parent_id else None
    payload = {
        "parent_id": str(parent_id) if parent_id else None,
        "former_parent_id": str(node.parent_id),
        "owner_id": access.owner,
        "position": node.position,
        "visibility": visibility_after_move(node.visibility, visibility, above),
    }
    await tx.emit(WorkspaceEvent.NODE_MOVED, node_id, payload, cause=purged)
