"""Compute, read and write the rows of nodes for ``backend rebuild workspace``."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel
from relaybox.db import Executor, load_queries
from relaybox.events import RecordedEvent
from shared_types.workspace import (
    WorkspaceChapter,
    WorkspaceEvent,
    WorkspaceGrant,
    WorkspaceLink,
    WorkspaceNode,
    WorkspaceReply,
    WorkspaceThread,
    WorkspaceVersion,
)

from backend.rebuilding import Projection, RowChange
from backend.workspace.core import ACCESS_SQL, NODES, TABLES, Rows, collect_changes, write_rows
from backend.workspace.projection import AGGREGATE_TYPE, EVENT_TYPES, NodeEvent, NodeState, apply_event

__all__ = ("NodeProjection",)

_SQL: Final = load_queries(__package__ or "backend.workspace", "rebuild.sql")
_MODELS: Final[Mapping[str, type[BaseModel]]] = {
    NODES: WorkspaceNode,
    "chapters": WorkspaceChapter,
    "versions": WorkspaceVersion,
    "threads": WorkspaceThread,
    "replies": WorkspaceReply,
    "grants": WorkspaceGrant,
    "links": WorkspaceLink,
}
#: The column that identifies a row within its node, for tables whose rows have no ``id``.
_KEYS: Final = {"versions": "number", "grants": "user_id"}


class NodeProjection(Projection[NodeState, NodeState]):
    """The projection of nodes: the rows of a node in all tables except ``workspace_link_secrets``.

    Events do not contain the secrets of links, so a rebuild does not change them.
    """

    aggregate_type = AGGREGATE_TYPE
    event_types = EVENT_TYPES
    noun = "node"
    no_rows = NodeState()
    repaired_together_max = 100

    def apply(self, state: NodeState | None, event: RecordedEvent, *, erased: bool) -> NodeState:
        """Return the rows after *event*; a node has no rows after a purge or an erasure of its events."""
        if erased or state is None:
            state = NodeState()
        if not erased:
            node_event = NodeEvent(
                type=WorkspaceEvent(event.type),
                node_id=UUID(event.aggregate_id),
                payload=event.payload,
                actor=event.metadata["user_id"],
                at=event.created_at,
                version=event.version,
            )
            apply_event(state, node_event)
        return state

    def rows_of(self, state: NodeState) -> NodeState:
        """Return *state*: the state of a node is the collection of its rows."""
        return state

    def differing_parts(self, change: RowChange[NodeState]) -> tuple[str, ...]:
        """Return the names of the tables whose rows differ, without the prefix ``workspace_``."""
        tables = [NODES] if change.stored.node != change.rebuilt.node else []
        tables += [t for t in TABLES if getattr(change.stored, t) != getattr(change.rebuilt, t)]
        return tuple(tables)

    async def lock(self, executor: Executor, aggregate_ids: Sequence[UUID]) -> None:
        """Lock the rows of the nodes until the end of the transaction.

        Every command locks the row of an existing node before it changes rows of the node.
        """
        await executor.fetch(ACCESS_SQL["lock_nodes"], list(aggregate_ids))

    async def read(self, executor: Executor, aggregate_ids: Sequence[UUID]) -> Mapping[UUID, NodeState]:
        """Read the rows of nodes from all tables."""
        states = {node_id: NodeState() for node_id in aggregate_ids}
        for row in await executor.fetch(_SQL["rows_of_nodes"], list(aggregate_ids)):
            table, state = row["table_name"], states[row["node_id"]]
            model: Any = _MODELS[table].model_validate_json(row["row"])
            if table == NODES:
                state.node = model
            else:
                getattr(state, table)[getattr(model, _KEYS.get(table, "id"))] = model
        return states

    async def write(self, executor: Executor, changes: Sequence[RowChange[NodeState]]) -> None:
        """Write the rows that differ, and delete rows that no event created."""
        written: Rows = {}
        deleted: Rows = {}
        for change in changes:
            before = _sharing_equal_rows(change.stored, change.rebuilt)
            collect_changes(before, change.rebuilt, written=written, deleted=deleted)
        await write_rows(executor, written=written, deleted=deleted)

    async def ids_without_events(self, executor: Executor, after: UUID, limit: int) -> list[UUID]:
        """Return up to *limit* ids above *after* of nodes that have rows in any table but no events."""
        rows = await executor.fetch(_SQL["nodes_without_events_page"], after, limit)
        return [row["node_id"] for row in rows]


def _sharing_equal_rows(stored: NodeState, rebuilt: NodeState) -> NodeState:
    """Return *stored*; each row that equals a row of *rebuilt* is replaced by the object in *rebuilt*.

    ``collect_changes`` compares rows by identity.
    """
    shared = NodeState(node=rebuilt.node if stored.node == rebuilt.node else stored.node)
    for table in TABLES:
        new: Mapping[Any, BaseModel] = getattr(rebuilt, table)
        old: Mapping[Any, BaseModel] = getattr(stored, table)
        getattr(shared, table).update(
            {key: new[key] if new.get(key) == row else row for key, row in old.items()}
        )
    return shared
