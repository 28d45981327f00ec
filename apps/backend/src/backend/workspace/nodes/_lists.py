"""Queries of lists of nodes, limited to what the requester may read."""

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
    """Return the first rows *after* a position (position, id) of the children of a readable node.

    *link_id* is the share link of the request; it may give access to one child.
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
    """Return a readable node and the nodes below it, to a *depth*, as the JSON text of a list.

    PostgreSQL writes the JSON: converting 10,000 nodes to Python objects would take most of the time.
    *link_id* is the share link of the request; it may give access to a node further down.
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
