"""Row locks of commands. All commands lock in the same order, so that they cannot deadlock.

A command takes its locks in this order, and each kind in the order of node ids:

===== ================================ ==================== ==========================================
order rows                             mode                 functions
===== ================================ ==================== ==========================================
1     roots of the trees               FOR UPDATE           :func:`lock_trees`, :func:`lock_roots`
1     roots of the trees               FOR SHARE            :func:`lock_in_place`, :func:`lock_parent`
2     nodes of these trees             FOR UPDATE           all of the above but :func:`lock_roots`;
                                                            :func:`lock_node`, :func:`lock_nodes`
2     nodes in the file of an export   FOR SHARE            :func:`share_lock_nodes`
3     tasks, outbox rows               FOR UPDATE, UPDATE   ``trash.purge_batch``
===== ================================ ==================== ==========================================

Commands that move, trash or purge nodes lock the root FOR UPDATE. A command during which a node must not be
moved, trashed or purged locks the root FOR SHARE; if the root itself is one of the nodes of order 2, it is
locked FOR UPDATE at once, because two transactions that upgrade a shared lock deadlock.

The SQL function ``workspace_hold`` takes the locks 1 and 2. If another transaction moves a node to another
tree before its root is locked, the function releases its locks and starts again, ten attempts in all.
"""

from collections.abc import Sequence
from uuid import UUID

from shared_types.workspace import Role

from backend.workspace.access import Access
from backend.workspace.core._transaction import ACCESS_SQL, CommandTransaction

__all__ = (
    "lock_in_place",
    "lock_node",
    "lock_nodes",
    "lock_parent",
    "lock_roots",
    "lock_trees",
    "share_lock_nodes",
)


async def lock_node(tx: CommandTransaction, node_id: UUID, needed: Role) -> Access:
    """Lock a live node FOR UPDATE, and require the role *needed*.

    For commands that change the rows of the node, but neither its parent nor its children.

    Raises:
        NodeNotFound, RoleMissing: See :meth:`Access.require`.
    """
    await lock_nodes(tx, node_id)
    access = await tx.access(node_id)
    access.require(needed)
    return access


async def lock_parent(tx: CommandTransaction, parent_id: UUID, needed: Role) -> Access:
    """Lock a live node to which the command adds a child, and require the role *needed*.

    The node cannot be moved, trashed or purged before the end of the transaction. Commands that hold this
    lock while they choose title and position of a child run one after the other, so their choices do not
    conflict.

    Raises:
        NodeNotFound, RoleMissing: See :meth:`Access.require`.
        RetryTransaction: Nodes were moved during each of ten attempts.
    """
    access = await lock_in_place(tx, parent_id)
    access.require(needed)
    return access


async def lock_in_place(tx: CommandTransaction, node_id: UUID, *others: UUID) -> Access:
    """Lock a node and *others* of its tree, so that none of them is moved, trashed or purged.

    Raises:
        NodeNotFound: One of the nodes does not exist.
        RetryTransaction: Nodes were moved during each of ten attempts.
    """
    await _lock_in_trees(tx, (node_id, *others), (node_id, *others), exclusive=False)
    return await tx.access(node_id)


async def lock_trees(tx: CommandTransaction, *node_ids: UUID) -> list[Access]:
    """Lock nodes FOR UPDATE, and before them the roots of their trees, also FOR UPDATE.

    For commands that move or trash nodes. No other transaction can move, trash or purge nodes of these trees
    meanwhile.

    Raises:
        NodeNotFound: One of the nodes does not exist.
        RetryTransaction: Nodes were moved during each of ten attempts.
    """
    await _lock_in_trees(tx, node_ids, node_ids, exclusive=True)
    return [await tx.access(node_id) for node_id in node_ids]


async def lock_roots(tx: CommandTransaction, node_id: UUID, *others: UUID) -> Access:
    """Lock the roots of the trees of a node and of *others* FOR UPDATE: no node of these trees can be moved.

    Call this before all other lock functions: roots come first in the order of locks. Ids in *others* that do
    not exist are ignored.

    Raises:
        NodeNotFound: The node does not exist.
        RetryTransaction: Nodes were moved during each of ten attempts.
    """
    await _lock_in_trees(tx, (node_id, *others), (), exclusive=True)
    return await tx.access(node_id)


async def lock_nodes(tx: CommandTransaction, *node_ids: UUID) -> None:
    """Lock nodes FOR UPDATE and load their rows.

    Raises:
        NodeNotFound: One of the nodes does not exist.
    """
    if node_ids:
        tx.load_nodes(node_ids, await tx.executor.fetch(ACCESS_SQL["lock_nodes"], list(set(node_ids))))


async def share_lock_nodes(tx: CommandTransaction, node_ids: Sequence[UUID]) -> int:
    """Lock nodes FOR SHARE, so that none is changed or purged; return the number of nodes that exist."""
    return len(await tx.executor.fetch(ACCESS_SQL["share_lock_nodes"], node_ids))


async def _lock_in_trees(
    tx: CommandTransaction, places: Sequence[UUID], nodes: Sequence[UUID], *, exclusive: bool
) -> None:
    """Lock the roots of the trees of *places*, then *nodes*, a subset of *places*; load the rows of *nodes*.

    *exclusive*: lock the roots FOR UPDATE instead of FOR SHARE, and load their rows too.
    """
    tx.load_nodes(nodes, await tx.executor.fetch(ACCESS_SQL["lock_in_trees"], places, nodes, exclusive))
