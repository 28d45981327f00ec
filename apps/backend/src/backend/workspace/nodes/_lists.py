"""Read lists of nodes, limited to those that the requester may read."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from relaybox.db import Executor
from shared_types.workspace import Role

from backend.workspace.access import LEVELS_MAX, Access
from backend.workspace.nodes._nodes import NODES_SQL

__all__ = ("fetch_children", "fetch_tree")


async def fetch_children(
    executor: Executor,
    access: Access,
    link_id: UUID | None,
    *,
    after: Sequence[Any],
    rows_max: int,
) -> Sequence[Mapping[str, Any]]:
    """Return the next rows of the live children of a node that the requester may read, in their order.

    Args:
        executor: A connection.
        access: The requester's access to the node, which the requester may read.
        link_id: The share link of the request, or None. The link may give access to some of the children
            only.
        after: Position and id of the last child of the previous page; twice None for the first page.
        rows_max: The maximum number of rows.

    Returns:
        Rows with ``row``, the child as JSON text, and ``visibility``, its own or inherited visibility.
    """
    return await executor.fetch(
        NODES_SQL["children_page"],
        access.node.id,
        *after,
        rows_max,
        access.visibility,
        access.role is Role.OWNER,
        _has_role_above(access),
        access.subject,
        link_id,
    )


async def fetch_tree(
    executor: Executor, access: Access, link_id: UUID | None, *, depth: int = LEVELS_MAX
) -> str:
    """Return a node and the live nodes below it that the requester may read, as the JSON text of a list.

    Parents come before their children. PostgreSQL creates the JSON, because converting 10,000 nodes to Python
    objects would take most of the time of a request.

    Args:
        executor: A connection.
        access: The requester's access to the node, which the requester may read.
        link_id: The share link of the request, or None. The link may give access to some of the lower nodes
            only.
        depth: The number of levels below the node.
    """
    [row] = await executor.fetch(
        NODES_SQL["tree"],
        access.node.id,
        depth,
        access.visibility,
        access.role is Role.OWNER,
        _has_role_above(access),
        access.subject,
        link_id,
        access.parent_id,
    )
    return row["items"]


def _has_role_above(access: Access) -> bool:
    return any(one.granted or one.linked for one in access.chain)
