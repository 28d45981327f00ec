"""Lists of nodes, with what may be read by itself and nothing else."""

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
    """The first rows *after* a place (position, id) of the children of a node that may be read.

    *link_id* is the link that who asks came with: it may lead to a child.
    """
    return await executor.fetch(
        NODES_SQL["children_page"],
        access.node.id,
        *after,
        rows_max,
        access.visibility,
        access.role is Role.OWNER,
        _granted(access),
        access.subject,
        link_id,
    )


async def fetch_tree(
    executor: Executor, access: Access, link_id: UUID | None, *, depth: int = LEVELS_MAX
) -> str:
    """A node that may be read and what is below it, to a *depth*, as the JSON text of a list.

    PostgreSQL writes it: 10,000 nodes as Python objects would take longer than all else. *link_id* is the
    link that who asks came with: it may lead to a node further down.
    """
    [row] = await executor.fetch(
        NODES_SQL["tree"],
        access.node.id,
        depth,
        access.visibility,
        access.role is Role.OWNER,
        _granted(access),
        access.subject,
        link_id,
        access.parent_id,
    )
    return row["items"]


def _granted(access: Access) -> bool:
    return any(one.granted or one.linked for one in access.chain)
