"""Commands of the recycle bin: trash a subtree as one batch, and restore exactly this batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

from relaybox.db import RetryTransaction, load_queries
from shared_types.workspace import Visibility, WorkspaceEvent

from backend.workspace.access import Access
from backend.workspace.core import CommandTransaction, IfMatch, lock_nodes, lock_roots, lock_trees
from backend.workspace.errors import NodeNotFound
from backend.workspace.nodes import check_placement, next_position

__all__ = ("BIN_SQL", "RestoreResult", "restore_node", "trash_node", "visibility_after_move")

BIN_SQL: Final = load_queries(__package__ or "backend.workspace.trash", "bin.sql")


@dataclass(frozen=True, kw_only=True, slots=True)
class RestoreResult:
    """The place of a restored node, and the size of its batch."""

    #: The new parent; None if the node is a root now.
    parent_id: UUID | None
    #: Whether the new parent is another node than the former parent.
    fallback: bool
    #: Number of restored nodes, including the node.
    count: int


async def trash_node(tx: CommandTransaction, node_id: UUID, match: IfMatch, reason: str | None) -> None:
    """Trash a node with its subtree; only the row of the node changes.

    The nodes below are in the bin because an ancestor is. Nodes below that were trashed before remain
    separate batches.

    Raises:
        NodeNotFound: The node does not exist, or the sender may not read it.
        RoleMissing: The sender is not an editor of the node, or not the owner if the node is a root.
        NodeTrashed: The node is in the bin already.
        VersionStale: The node does not have the version that *match* requires.
    """
    [access] = await lock_trees(tx, node_id)
    access.require_trashing()
    access.require_live()
    match.check(tx.node(node_id).version)
    [subtree] = await tx.executor.fetch(BIN_SQL["count_nodes_to_trash"], node_id)
    payload = {
        "batch_id": str(uuid4()),
        "count": subtree["nodes"],
        "reason": reason,
        "path": [str(one.id) for one in reversed(access.chain[1:])],
    }
    await tx.emit(WorkspaceEvent.NODE_SOFT_DELETED, node_id, payload)
    await tx.record("TrashNode", node_id, {"reason": reason})


async def restore_node(tx: CommandTransaction, node_id: UUID) -> RestoreResult:
    """Restore a batch below its former parent, or below the nearest former ancestor that can take the batch.

    That ancestor must be live, in a tree of the same owner. Without one, the node becomes a root of this
    owner.

    Raises:
        NodeNotFound: The node does not exist, or the sender may not see it in the bin.
        RoleMissing: The node is live, and the sender is not an editor of the node.
        NodeNotTrashed, NodeTrashedWithAncestor: The node is not the topmost node of a batch.
        TitleTaken: Another live study of the folder has the title.
        TreeTooDeep: The parent was moved to a lower level, and the tree would have too many levels.
        RetryTransaction: The parent was moved to another tree before it was locked.
    """
    access, parent = await _lock_with_place(tx, node_id)
    node = tx.node(node_id)
    # A constraint of the table ensures that the columns of a trashed node are all set or all null.
    assert node.trash_path is not None
    assert node.trash_count is not None
    former_id = node.trash_path[-1] if node.trash_path else None
    parent_id = None if parent is None else parent.node.id
    position = node.position if parent_id == former_id else 0
    if parent is not None:
        await check_placement(tx, access, parent)
        if parent_id != former_id:
            position = await next_position(tx, parent.node.id)
    restored = RestoreResult(parent_id=parent_id, fallback=parent_id != former_id, count=node.trash_count)
    payload = {
        "parent_id": str(parent_id) if parent_id else None,
        "owner_id": access.owner,
        "position": position,
        "visibility": visibility_after_move(
            node.visibility, access.visibility, parent.visibility if parent else None
        ),
        "batch_id": str(node.trash_batch_id),
        "count": restored.count,
        "fallback": restored.fallback,
    }
    await tx.emit(WorkspaceEvent.NODE_RESTORED, node_id, payload)
    await tx.record("RestoreNode", node_id, {})
    return restored


def visibility_after_move(
    own: Visibility | None, here: Visibility, there: Visibility | None
) -> Visibility | None:
    """Return the visibility to store for a node that is moved without a change of the visibility in effect.

    The node keeps its own visibility. A node that inherits its visibility continues to inherit, if the new
    parent has the same visibility in effect; otherwise the inherited visibility becomes its own.

    Args:
        own: The stored visibility before the move; None if the node inherits its visibility.
        here: The visibility in effect before the move: *own*, or the inherited visibility.
        there: The visibility in effect of the new parent; None if the node becomes a root.
    """
    return own or (None if here is there else here)


async def _lock_with_place(tx: CommandTransaction, node_id: UUID) -> tuple[Access, Access | None]:
    """Lock the topmost node of a batch, and the live node that becomes its parent; return the access to both.

    The second access is None if the batch becomes a tree of its own. The parent is searched twice: before the
    lock, to know which trees to lock, and under the lock, which excludes moves.

    Raises:
        NodeNotFound, RoleMissing, NodeNotTrashed, NodeTrashedWithAncestor: As for :func:`restore_node`.
        RetryTransaction: The parent was moved to another tree before it was locked.
    """
    before = await _place(tx, node_id)
    await lock_roots(tx, node_id, *before)
    place = await _place(tx, node_id)
    if place != before and not await _is_locked(tx, place):
        # Retry the whole transaction: locking a second tree while holding the first may deadlock. A savepoint
        # would not help: other transactions that wait for a lock wait for the end of the whole transaction.
        raise RetryTransaction(
            f"the former parent of node {node_id} was moved during the command; repeat the transaction"
        )
    await lock_nodes(tx, node_id, *place)
    access, *parents = [await tx.access(one) for one in (node_id, *place)]
    access.require_restoring()
    access.require_trashed()
    return access, parents[0] if parents else None


async def _is_locked(tx: CommandTransaction, place: Sequence[UUID]) -> bool:
    """Return whether the trees of the nodes *place* are locked in *tx*, so that the nodes cannot be moved."""
    try:
        return all([tx.is_loaded((await tx.access(one)).root.id) for one in place])
    except NodeNotFound:
        return False


async def _place(tx: CommandTransaction, node_id: UUID) -> list[UUID]:
    return [row["id"] for row in await tx.executor.fetch(BIN_SQL["find_restore_parent"], node_id)]
