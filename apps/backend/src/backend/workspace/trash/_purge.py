"""Purge: delete a batch of the recycle bin from PostgreSQL, with every copy of its content."""

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
#: Maximum number of nodes per statement, so that large batches do not exceed the statement timeout.
_NODES_MAX: Final = 100
_REASON: Final = "purged from the bin"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    """The nodes of a batch, which were trashed together, and the batches below it; all nodes are locked."""

    #: The nodes of the batch.
    node_ids: list[UUID]
    #: The topmost nodes of the batches below, which were trashed earlier and are not purged, each with its
    #: visibility in effect.
    nested: dict[UUID, Visibility]


async def purge_node(tx: CommandTransaction, node_id: UUID) -> PurgeCounts:
    """Purge a batch; the sender must own the tree.

    Raises:
        NodeNotFound: The node does not exist, or the sender may not see it in the bin.
        RoleMissing: The sender may see the node, but does not own the tree.
        NodeNotTrashed, NodeTrashedWithAncestor: The node is not the topmost node of a batch.
    """
    return await purge_batch(tx, await _lock(tx, node_id), reason=_REASON)


async def count_purge(tx: CommandTransaction, node_id: UUID) -> PurgeCounts:
    """Count the rows that :func:`purge_node` would delete: purge in a savepoint, and roll back to it.

    Raises:
        NodeNotFound, RoleMissing, NodeNotTrashed, NodeTrashedWithAncestor: As for :func:`purge_node`.
    """
    batch = await _lock_batch(tx, await _lock(tx, node_id))
    async with tx.db.begin_nested() as attempt:
        counts = await _erase(tx, batch, reason=_REASON)
        await attempt.rollback()
    return counts


async def purge_batch(tx: CommandTransaction, access: Access, *, reason: str) -> PurgeCounts:
    """Purge a batch whose tree is locked, without checking the sender's role.

    The events of the batch are erased before ``node.purged`` is emitted, so that this event keeps its
    content. Batches below, which were trashed earlier, stay in the bin: each is moved to the parent of the
    purged batch, by an event ``node.moved`` that the purge causes.

    Args:
        tx: The command's transaction.
        access: The access to the topmost node of the batch.
        reason: The reason in ``event_erasures``; must not contain the erased content.
    """
    batch = await _lock_batch(tx, access)
    root = tx.node(access.node.id)
    counts = await _erase(tx, batch, reason=reason)
    payload = {"batch_id": str(root.trash_batch_id), "count": counts.nodes}
    purged = await tx.emit(WorkspaceEvent.NODE_PERMANENTLY_DELETED, root.id, payload)
    await lock_nodes(tx, *batch.nested)
    for node_id, visibility in batch.nested.items():
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
    # In the order of ids, like all locks on several nodes, to prevent deadlocks.
    for node_ids in _chunks([row["id"] for row in rows]):
        await tx.executor.fetch(PURGE_SQL["lock_batch_nodes"], node_ids)
    await lock_nodes(tx, access.node.id)
    return _Batch(
        node_ids=[row["id"] for row in rows if not row["apart"]],
        nested={row["id"]: Visibility(row["visibility"]) for row in rows if row["apart"]},
    )


def _chunks(node_ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    return (node_ids[start : start + _NODES_MAX] for start in range(0, len(node_ids), _NODES_MAX))


async def _erase(tx: CommandTransaction, batch: _Batch, *, reason: str) -> PurgeCounts:
    counts = await _drop_from_tasks(tx, batch)
    for node_ids in _chunks(batch.node_ids):
        [rows] = await tx.executor.fetch(PURGE_SQL["delete_batch_nodes"], node_ids)
        counts.update(**rows)
    # At the end, and in one statement: relays wait for the outbox rows that erase() locks.
    erased = await erase(tx.db, AGGREGATE_TYPE, batch.node_ids, actor=tx.caller.actor, reason=reason)
    counts.update(
        events=erased.events, commands=erased.commands, tasks=erased.tasks, stored_answers=erased.answers
    )
    return PurgeCounts(**counts)


async def _drop_from_tasks(tx: CommandTransaction, batch: _Batch) -> Counter[str]:
    """Erase the content of the batch from tasks, and cancel open imports whose parent is in the batch.

    Exports lose their files, completed imports the details of their reports, other imports their input,
    result and error. Return the numbers of these tasks and commands.
    """
    fetch = tx.executor.fetch
    # No such task can be created concurrently: an export locks the nodes in its file, an import locks its
    # parent.
    found = [
        row["id"]
        for node_ids in _chunks(batch.node_ids)
        for row in await fetch(PURGE_SQL["find_tasks_of_nodes"], [str(node_id) for node_id in node_ids])
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
    """Move a batch that was below the purged batch, with the topmost node *node_id*, to its new parent."""
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
