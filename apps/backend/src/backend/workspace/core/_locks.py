"""Row locks of commands, in one order, so that two commands never wait for each other in a circle.

A command takes its locks in this order, and each kind in the order of node ids:

===== ================================ ==================== ==========================================
order rows                             mode                 functions
===== ================================ ==================== ==========================================
1     roots of the trees               FOR UPDATE           :func:`lock_trees`, :func:`lock_roots`
1     roots of the trees               FOR SHARE            :func:`lock_in_place`, :func:`lock_parent`
2     nodes of these trees             FOR UPDATE           all of the above but :func:`lock_roots`;
                                                            :func:`lock_node`, :func:`lock_nodes`
2     nodes that an export names       FOR SHARE            :func:`share_lock_nodes`
3     tasks, outbox rows               as their statements  ``trash.purge_batch``
===== ================================ ==================== ==========================================

A move, a trash and a purge lock the root FOR UPDATE; a command that needs a node to stay in its place locks
the root FOR SHARE. The SQL function ``workspace_hold`` takes locks 1 and 2 and starts again when a node has
moved meanwhile.
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
    """Lock a live node whose own rows the command changes, and require the role *needed*.

    Raises:
        NodeNotFound, RoleMissing: See :meth:`Access.require`.
    """
    await lock_nodes(tx, node_id)
    access = await tx.access(node_id)
    access.require(needed)
    return access


async def lock_parent(tx: CommandTransaction, parent_id: UUID, needed: Role) -> Access:
    """Lock a live node that gets a child, keep it in its place, and require the role *needed*.

    The lock of its row serialises the titles and positions of its children.

    Raises:
        NodeNotFound, RoleMissing: See :meth:`Access.require`.
        RetryTransaction: Nodes were moved during each of ten attempts.
    """
    access = await lock_in_place(tx, parent_id)
    access.require(needed)
    return access


async def lock_in_place(tx: CommandTransaction, node_id: UUID, *others: UUID) -> Access:
    """Lock a node and *others* of its tree, and keep each of them in its place.

    Raises:
        NodeNotFound: One of them does not exist.
        RetryTransaction: Nodes were moved during each of ten attempts.
    """
    await _lock_in_trees(tx, (node_id, *others), (node_id, *others), exclusive=False)
    return await tx.access(node_id)


async def lock_trees(tx: CommandTransaction, *node_ids: UUID) -> list[Access]:
    """Lock nodes whose places change, and the roots of their trees: nothing else moves in these trees.

    Raises:
        NodeNotFound: One of them does not exist.
        RetryTransaction: Nodes were moved during each of ten attempts.
    """
    await _lock_in_trees(tx, node_ids, node_ids, exclusive=True)
    return [await tx.access(node_id) for node_id in node_ids]


async def lock_roots(tx: CommandTransaction, node_id: UUID, *others: UUID) -> Access:
    """Lock only the roots of the trees of a node and of *others*: nothing moves in these trees.

    Take all other locks after these. *others* that do not exist are ignored.

    Raises:
        NodeNotFound: The node does not exist.
        RetryTransaction: Nodes were moved during each of ten attempts.
    """
    await _lock_in_trees(tx, (node_id, *others), (), exclusive=True)
    return await tx.access(node_id)


async def lock_nodes(tx: CommandTransaction, *node_ids: UUID) -> None:
    """Lock nodes FOR UPDATE and load their rows.

    Raises:
        NodeNotFound: One of them does not exist.
    """
    if node_ids:
        tx.load_nodes(node_ids, await tx.executor.fetch(ACCESS_SQL["lock_nodes"], list(set(node_ids))))


async def share_lock_nodes(tx: CommandTransaction, node_ids: Sequence[UUID]) -> int:
    """Lock nodes FOR SHARE, which keeps them from being changed or purged; return how many exist."""
    return len(await tx.executor.fetch(ACCESS_SQL["share_lock_nodes"], node_ids))


async def _lock_in_trees(
    tx: CommandTransaction, places: Sequence[UUID], nodes: Sequence[UUID], *, exclusive: bool
) -> None:
    """Lock the roots of *places*, then *nodes* of their trees."""
    tx.load_nodes(nodes, await tx.executor.fetch(ACCESS_SQL["lock_in_trees"], places, nodes, exclusive))
