"""One command at work: what it has locked, what it says, and the writing of both in its transaction."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from relaybox.commands import Caller, InboxCommand, append_events, metadata_of
from relaybox.db import executor_of, load_queries
from relaybox_types.enums import CommandStatus
from relaybox_types.envelope import EventEnvelope, build_event_envelope
from shared_types.events import EventTarget
from shared_types.workspace import NodeKind, Role, Visibility, WorkspaceEvent, WorkspaceNode
from sqlalchemy.ext.asyncio import AsyncSession

from backend.workspace.access import Access, Ancestor, access_of
from backend.workspace.core._rows import TABLES, Rows, collect_changes, write_rows
from backend.workspace.errors import NodeNotFound
from backend.workspace.projection import AGGREGATE_TYPE, NodeEvent, NodeState, apply_event

__all__ = ("ACCESS_SQL", "CommandTransaction", "ancestors_from_rows")

ACCESS_SQL: Final = load_queries(__package__ or "backend.workspace.core", "access.sql")
#: Nodes that one answer speaks of, beside the command's own: an import of more is a task's, and has none.
_TAGGED_NODES_MAX: Final = 50


def ancestors_from_rows(rows: Sequence[Mapping[str, Any]]) -> list[Ancestor]:
    """The rows of the query ``chain``."""
    return [
        Ancestor(
            id=row["id"],
            kind=NodeKind(row["kind"]),
            parent_id=row["parent_id"],
            owner_id=row["owner_id"],
            title=row["title"],
            visibility=Visibility(row["visibility"]) if row["visibility"] else None,
            trashed=row["trashed"],
            trashed_by=row["trashed_by"],
            granted=Role(row["granted"]) if row["granted"] else None,
            linked=Role(row["linked"]) if row["linked"] else None,
        )
        for row in rows
    ]


class CommandTransaction:
    """A command in the transaction of *db*: lock, look, say what happened, then :meth:`record` it all.

    What is said is applied to the rows at once, by the same functions as a rebuild's. Every fact but the
    first is caused by the one before it, unless told otherwise; a chain that a *caller* brings goes on.
    """

    def __init__(
        self,
        db: AsyncSession,
        caller: Caller,
        *,
        key: str | None = None,
        link_id: UUID | None = None,
        recorded_command_id: UUID | None = None,
        tag_response: Callable[..., None] | None = None,
        on_recorded: Callable[[InboxCommand], None] | None = None,
    ) -> None:
        """*key* is the client's idempotency key, *link_id* the link that the request came with.

        *taken* is the id of a command that stands in the inbox already and is carried out now. *about* is
        told which nodes the answer is about, so that it is erased with any of them (``UnitOfWork.about``).
        *on_recorded* is called with the command when :meth:`record` has written it, before the COMMIT.
        """
        self.db = db
        self.executor = executor_of(db)
        self.caller = caller
        self.command_id = recorded_command_id or uuid4()
        self._is_recorded = recorded_command_id is not None
        self._tag_response = tag_response
        self._on_recorded = on_recorded
        self._created_ids: list[UUID] = []
        self._key = key
        self.link_id = link_id
        self._now: datetime | None = None
        self._states: dict[UUID, NodeState] = {}
        self._before: dict[UUID, NodeState] = {}
        self._versions: dict[UUID, int] = {}
        self._events: list[EventEnvelope] = []
        self._last: EventEnvelope | None = None
        #: How many of those said are written.
        self._written_count = 0

    async def access(self, node_id: UUID) -> Access:
        """What the caller may do on *node_id*, as this statement sees it.

        Raises:
            NodeNotFound: there is no such node.
        """
        rows = await self.executor.fetch(ACCESS_SQL["ancestors"], node_id, self.caller.actor, self.link_id)
        if rows:
            self._now = rows[0]["now"]
        return access_of(ancestors_from_rows(rows), self.caller.actor)

    async def lock_node(self, node_id: UUID, needed: Role) -> Access:
        """Lock a live node whose own rows are to change, and let only those pass who may what *needed* may.

        Raises:
            NodeNotFound, RoleMissing: see :meth:`Access.require`.
        """
        await self.lock_nodes(node_id)
        access = await self.access(node_id)
        access.require(needed)
        return access

    async def lock_parent(self, parent_id: UUID, needed: Role) -> Access:
        """Lock a live node below which something is to come; nobody takes it away meanwhile.

        Its row is locked so that titles and places below it are given one at a time.

        Raises:
            NodeNotFound, RoleMissing: see :meth:`Access.require`.
            RetryTransaction: the trees keep moving.
        """
        access = await self.lock_in_place(parent_id)
        access.require(needed)
        return access

    async def lock_in_place(self, node_id: UUID, *others: UUID) -> Access:
        """Lock a node, and *others* of its tree, where each stays in its place meanwhile.

        Raises:
            NodeNotFound: one of them is deleted.
            RetryTransaction: the trees keep moving.
        """
        await self._lock_in_trees((node_id, *others), (node_id, *others), alone=False)
        return await self.access(node_id)

    async def lock_trees(self, *node_ids: UUID) -> list[Access]:
        """Lock nodes whose places are to change, with the roots of their trees: nothing moves there.

        Raises:
            NodeNotFound: one of them is deleted.
            RetryTransaction: the trees keep moving.
        """
        await self._lock_in_trees(node_ids, node_ids, alone=True)
        return [await self.access(one) for one in node_ids]

    async def lock_roots(self, node_id: UUID, *others: UUID) -> Access:
        """Lock the roots of the trees of a node and of *others* alone: nothing moves there.

        What else is locked comes after them. Others that are deleted are passed over.

        Raises:
            NodeNotFound: the node is deleted.
            RetryTransaction: the trees keep moving.
        """
        await self._lock_in_trees((node_id, *others), (), alone=True)
        return await self.access(node_id)

    async def _lock_in_trees(self, places: Sequence[UUID], nodes: Sequence[UUID], *, alone: bool) -> None:
        """Lock the roots of *places*, then *nodes* below them; what moved meanwhile is let go."""
        self._load_nodes(nodes, await self.executor.fetch(ACCESS_SQL["lock_in_trees"], places, nodes, alone))

    async def lock_nodes(self, *node_ids: UUID) -> None:
        """Keep everybody else from changing these nodes, and load them.

        Raises:
            NodeNotFound: one of them is deleted.
        """
        if not node_ids:
            return
        self._load_nodes(node_ids, await self.executor.fetch(ACCESS_SQL["lock_nodes"], list(set(node_ids))))

    async def share_lock_nodes(self, node_ids: Sequence[UUID]) -> int:
        """Keep nodes from being changed or purged, as others may too; how many of them are there."""
        return len(await self.executor.fetch(ACCESS_SQL["share_lock_nodes"], node_ids))

    def _load_nodes(self, wanted: Sequence[UUID], rows: Sequence[Mapping[str, Any]]) -> None:
        nodes = [WorkspaceNode.model_validate_json(row["row"]) for row in rows]
        if not {*wanted} <= {node.id for node in nodes}:
            raise NodeNotFound
        for node in nodes:
            self._load_node(node.id, node)

    def _load_node(self, node_id: UUID, node: WorkspaceNode | None) -> NodeState:
        state = self._states.setdefault(node_id, NodeState())
        state.node = node
        self._before.setdefault(node_id, NodeState()).node = node
        self._versions[node_id] = node.stream_version if node else 0
        return state

    def load_rows(self, node_id: UUID, table: str, rows: Mapping[Any, Any]) -> None:
        """Hold *rows* of *table* as they are stored: only what is held can be changed by what is said."""
        assert table in TABLES, table
        for state in (self._states[node_id], self._before[node_id]):
            getattr(state, table).update(rows)

    def is_loaded(self, node_id: UUID) -> bool:
        """Whether a node is locked, or made by this work."""
        return node_id in self._states

    def state(self, node_id: UUID) -> NodeState:
        """What is held of *node_id*, after everything said so far."""
        return self._states[node_id]

    def node(self, node_id: UUID) -> WorkspaceNode:
        """The node itself, after everything said so far."""
        return self._states[node_id].present

    async def now(self) -> datetime:
        """The time of the transaction."""
        if self._now is None:
            [row] = await self.executor.fetch(ACCESS_SQL["now"])
            self._now = row["now"]
        assert self._now is not None
        return self._now

    async def emit(
        self,
        type_: WorkspaceEvent,
        node_id: UUID,
        payload: Mapping[str, Any],
        *,
        target: tuple[EventTarget, object] | None = None,
        cause: EventEnvelope | None = None,
    ) -> EventEnvelope:
        """This has happened to *node_id*: it is applied now, and recorded by :meth:`record`.

        *payload* is plain JSON. *target* is the finer thing it happened to; the node without one. A node that
        is not held is a new one.
        """
        now = await self.now()
        if node_id not in self._states:
            self._created_ids.append(node_id)
        state = self._states.get(node_id) or self._load_node(node_id, None)
        version = self._versions[node_id] = self._versions[node_id] + 1
        kind, thing = target or (EventTarget.NODE, node_id)
        envelope = build_event_envelope(
            event_type=type_,
            aggregate_type=AGGREGATE_TYPE,
            aggregate_id=str(node_id),
            version=version,
            correlation_id=self.caller.correlation_id or self.command_id,
            causation_id=self._causation_id(cause),
            payload=dict(payload),
            metadata=metadata_of(self.caller, self.command_id),
            actor_id=self.caller.actor,
            target_id=str(thing),
            target_type=kind,
            timestamp=now,
        )
        event = NodeEvent(
            type=type_, node_id=node_id, payload=payload, actor=self.caller.actor, at=now, version=version
        )
        apply_event(state, event)
        self._events.append(envelope)
        self._last = envelope
        return envelope

    def _causation_id(self, cause: EventEnvelope | None) -> UUID | None:
        if cause is not None:
            return cause.event_id
        return self._last.event_id if self._last else self.caller.causation_id

    async def flush(self) -> None:
        """Write what was said since :meth:`record`, and let go of it and of all rows but the nodes.

        For work that is too large to be held whole.

        Raises:
            RetryTransaction, MessageTooLarge: as for :meth:`record`.
        """
        await self._write(None)
        self._events, self._written_count = [], 0
        for node_id, state in self._states.items():
            self._states[node_id] = NodeState(node=state.node)
            self._before[node_id] = NodeState(node=state.node)

    async def record(
        self,
        command_type: str,
        node_id: UUID,
        payload: Mapping[str, Any],
        *,
        status: CommandStatus = CommandStatus.COMPLETED,
    ) -> None:
        """Write the command, its facts, their messages and the rows; it counts if the transaction commits.

        A command that changes nothing is not recorded. A recorded command is not written again.

        Raises:
            RetryTransaction: a stream has moved on; the node was not locked.
            MessageTooLarge: a fact is larger than a message may be.
        """
        if self._tag_response is not None:
            self._tag_response(node_id, *self._created_ids[:_TAGGED_NODES_MAX])
        if not self._events and status is CommandStatus.COMPLETED:
            return
        command = InboxCommand(
            command_id=self.command_id,
            command_type=command_type,
            aggregate_id=node_id,
            payload=payload,
            status=status,
            key=self._key,
        )
        await self._write(None if self._is_recorded else command)
        if self._on_recorded is not None:
            self._on_recorded(command)
        self._before = {node_id: state.copy() for node_id, state in self._states.items()}

    async def _write(self, command: InboxCommand | None) -> None:
        await append_events(self.db, command, self._events[self._written_count :])
        await self.write_rows()
        self._written_count = len(self._events)

    async def write_rows(self) -> None:
        """Write the rows alone, of facts that were recorded otherwise."""
        written: Rows = {}
        deleted: Rows = {}
        for node_id, state in self._states.items():
            collect_changes(self._before[node_id], state, written=written, deleted=deleted)
        await write_rows(self.executor, written=written, deleted=deleted)

    @property
    def events(self) -> Sequence[EventEnvelope]:
        """The facts so far, in order; those that :meth:`go_on` has written are deleted."""
        return tuple(self._events)
