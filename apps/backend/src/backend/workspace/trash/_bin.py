"""The recycle bin: putting a node there with all that is below it, and taking exactly that back."""

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
    """Where a node came back to."""

    #: Null: it is a root.
    parent_id: UUID | None
    #: Another place than the former one.
    fallback: bool
    #: Nodes that came back, itself included.
    count: int


async def trash_node(tx: CommandTransaction, node_id: UUID, match: IfMatch, reason: str | None) -> None:
    """Put a node into the bin: one row changes, and what is below it goes along.

    What was trashed below it before stays what it is, a batch of its own.

    Raises:
        NodeNotFound, RoleMissing: who asks is no editor, or not the owner of a whole tree.
        NodeTrashed: it is there already.
        VersionStale: it has changed since.
    """
    [access] = await lock_trees(tx, node_id)
    access.require_trashing()
    access.require_live()
    match.check(tx.node(node_id).version)
    [going] = await tx.executor.fetch(BIN_SQL["count_nodes_to_trash"], node_id)
    payload = {
        "batch_id": str(uuid4()),
        "count": going["nodes"],
        "reason": reason,
        "path": [str(one.id) for one in reversed(access.chain[1:])],
    }
    await tx.emit(WorkspaceEvent.NODE_SOFT_DELETED, node_id, payload)
    await tx.record("TrashNode", node_id, {"reason": reason})


async def restore_node(tx: CommandTransaction, node_id: UUID) -> RestoreResult:
    """Take a batch out of the bin: to its former place, or under the nearest former ancestor that is live.

    If none is, its topmost node becomes a root, which belongs to the owner of the tree it was in.

    Raises:
        NodeNotFound, RoleMissing: who asks neither owns the tree nor trashed it.
        NodeNotTrashed, NodeTrashedWithAncestor: it is no root of what was trashed together.
        TitleTaken: a study of the folder has its title by now.
        TreeTooDeep: the place has been moved so far down that what comes back does not fit.
        RetryTransaction: the place has become one in another tree.
    """
    access, parent = await _lock_with_place(tx, node_id)
    node = tx.node(node_id)
    # As the constraint of the table has it, these two come with the marker.
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
    """A node's *own* visibility in another place; *here* is what holds where it is, *there* above that place.

    What was hidden by a folder that is gone must not be shown by the next one: a node that inherits takes
    along what it had, unless it inherits the same there. *there* is null for a root, which inherits nothing.
    """
    return own or (None if here is there else here)


async def _lock_with_place(tx: CommandTransaction, node_id: UUID) -> tuple[Access, Access | None]:
    """Hold the root of a batch, and the live place that it goes back to, if there is one.

    Both are found once their trees are held, where nothing moves any more.

    Raises:
        NodeNotFound, RoleMissing, NodeNotTrashed, NodeTrashedWithAncestor: as for :func:`restore_node`.
        RetryTransaction: the place has become one in another tree.
    """
    seen = await _place(tx, node_id)
    await lock_roots(tx, node_id, *seen)
    place = await _place(tx, node_id)
    if place != seen and not await _is_held(tx, place):
        # From the start: who takes another tree while holding one may wait in a circle. No savepoint gives
        # that one back, as the function that locks has committed into it: who waits for such a lock waits on
        # for the end of the whole transaction, and others pass by.
        raise RetryTransaction(f"the former place of {node_id} has changed meanwhile; try again")
    await lock_nodes(tx, node_id, *place)
    access, *parents = [await tx.access(one) for one in (node_id, *place)]
    access.require_restoring()
    access.require_trashed()
    return access, parents[0] if parents else None


async def _is_held(tx: CommandTransaction, place: Sequence[UUID]) -> bool:
    """Whether the trees of *place* are held, so that it stays where it is."""
    try:
        return all([tx.is_loaded((await tx.access(one)).root.id) for one in place])
    except NodeNotFound:
        return False


async def _place(tx: CommandTransaction, node_id: UUID) -> list[UUID]:
    return [row["id"] for row in await tx.executor.fetch(BIN_SQL["find_restore_parent"], node_id)]
