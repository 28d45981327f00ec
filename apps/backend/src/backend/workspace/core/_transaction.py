"""The transaction of one command: loads rows, applies new events to them, and writes both."""

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
from backend.workspace.projection import AGGREGATE_TYPE, EVENT_TYPES, NodeEvent, NodeState, apply_event

__all__ = ("ACCESS_SQL", "CommandTransaction", "ancestors_from_rows")

ACCESS_SQL: Final = load_queries(__package__ or "backend.workspace.core", "access.sql")
#: Maximum number of created nodes that are declared as content of the stored response (:meth:`tag_response`).
#: A task, which has no HTTP response, executes imports that create more nodes.
_TAGGED_NODES_MAX: Final = 50


def ancestors_from_rows(rows: Sequence[Mapping[str, Any]]) -> list[Ancestor]:
    """Return the rows of the query ``ancestors`` (access.sql) as objects, for :func:`access_of`."""
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
    """The transaction of one command: lock nodes, load rows, emit events, then :meth:`record` everything.

    The functions in :mod:`backend.workspace.core._locks` lock nodes. :meth:`emit` applies an event to the
    loaded rows with the functions that a rebuild uses too. The causation id of an event is the id of the
    cause that is passed to :meth:`emit`; without a cause, it is the id of the event emitted before. The first
    event has the causation id of the :class:`Caller`.
    """

    def __init__(
        self,
        db: AsyncSession,
        caller: Caller,
        *,
        key: str | None = None,
        link_id: UUID | None = None,
        recorded_command_id: UUID | None = None,
        on_response_nodes: Callable[..., None] | None = None,
        on_recorded: Callable[[InboxCommand], None] | None = None,
    ) -> None:
        """Create the object, without a statement to PostgreSQL.

        Args:
            db: The session, in a transaction that the code which creates this object commits.
            caller: The user or service that sends the command, with correlation id and causation id.
            key: The client's idempotency key; None without a key.
            link_id: The share link of the request's share token; None without a share token.
            recorded_command_id: The id of a command in the inbox that a task executes; None for a new
                command.
            on_response_nodes: Called with the ids of nodes that the response contains, so that a purge of
                such a node erases the stored response too (``UnitOfWork.about``).
            on_recorded: Called with the command after :meth:`record` has written the command, before the
                commit.
        """
        self.db = db
        self.executor = executor_of(db)
        self.caller = caller
        self.command_id = recorded_command_id or uuid4()
        self._is_recorded = recorded_command_id is not None
        self._on_response_nodes = on_response_nodes
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
        #: Number of events in _events that are written already.
        self._written_count = 0

    async def access(self, node_id: UUID) -> Access:
        """Return the access of the command's sender to a node, live or in the bin; read without a lock.

        Raises:
            NodeNotFound: The node does not exist.
        """
        rows = await self.executor.fetch(ACCESS_SQL["ancestors"], node_id, self.caller.actor, self.link_id)
        if rows:
            self._now = rows[0]["now"]
        return access_of(ancestors_from_rows(rows), self.caller.actor)

    def load_nodes(self, expected: Sequence[UUID], rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows of ``workspace_nodes`` that a statement of this transaction has locked to the loaded rows.

        Args:
            expected: Ids of nodes that must be in *rows*.
            rows: Result of the statement; its column ``row`` is a node as JSON text.

        Raises:
            NodeNotFound: One of the *expected* nodes is missing.
        """
        nodes = [WorkspaceNode.model_validate_json(row["row"]) for row in rows]
        if not {*expected} <= {node.id for node in nodes}:
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
        """Add rows of another table than ``workspace_nodes`` to the loaded rows of a node.

        Events can change only loaded rows.

        Args:
            node_id: A loaded node.
            table: The table's name in :class:`NodeState`, such as ``chapters``.
            rows: The rows by their keys in :class:`NodeState`.
        """
        assert table in TABLES, table
        for state in (self._states[node_id], self._before[node_id]):
            getattr(state, table).update(rows)

    def is_loaded(self, node_id: UUID) -> bool:
        """Return whether a node was locked or created in this transaction."""
        return node_id in self._states

    def state(self, node_id: UUID) -> NodeState:
        """Return the loaded rows of a node, with the changes of all emitted events."""
        return self._states[node_id]

    def node(self, node_id: UUID) -> WorkspaceNode:
        """Return the row of a loaded node, with the changes of all emitted events."""
        return self._states[node_id].present

    async def now(self) -> datetime:
        """Return the time of the transaction, PostgreSQL's ``now()``, which events and rows get."""
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
        """Create an event, apply it to the loaded rows of its node, and keep it until :meth:`record`.

        Args:
            type_: The type of the event.
            node_id: The node of the event. If the node is not loaded, the event must create the node.
            payload: The payload, of JSON values.
            target: Type and id of the object that the event changes, such as a thread; None for the node.
            cause: The event that caused this event; None for the event emitted before.
        """
        now = await self.now()
        if node_id not in self._states:
            self._created_ids.append(node_id)
        state = self._states.get(node_id) or self._load_node(node_id, None)
        version = self._versions[node_id] = self._versions[node_id] + 1
        target_type, target_id = target or (EventTarget.NODE, node_id)
        envelope = build_event_envelope(
            event_type=type_,
            event_version=EVENT_TYPES[type_].version,
            aggregate_type=AGGREGATE_TYPE,
            aggregate_id=str(node_id),
            version=version,
            correlation_id=self.caller.correlation_id or self.command_id,
            causation_id=self._causation_id(cause),
            payload=dict(payload),
            metadata=metadata_of(self.caller, self.command_id),
            actor_id=self.caller.actor,
            target_id=str(target_id),
            target_type=target_type,
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
        """Write the events that are not written yet and the rows that they changed; then free their memory.

        Only the rows of the nodes themselves stay loaded. For commands with too many events for memory, such
        as a large import. The command itself must be in the inbox already.

        Raises:
            RetryTransaction, MessageTooLarge: As for :meth:`record`.
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
        """Write the command, its events, their outbox rows and the changed rows; do not commit.

        A command without events is written only if a task will execute it, which means with another *status*
        than COMPLETED. A command that is in the inbox already is not written again.

        Raises:
            RetryTransaction: Another transaction has recorded an event of a node that was not locked here.
            DuplicateCommand: The status is RECEIVED, and *node_id* has a pending command of the type.
            MessageTooLarge: An event is larger than the maximum size of a Kafka message.
        """
        self.tag_response(node_id, *self._created_ids[:_TAGGED_NODES_MAX])
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

    def tag_response(self, *node_ids: UUID) -> None:
        """Declare that the response contains these nodes: a purge of one of them erases the stored response.

        One request may declare at most 100 nodes.
        """
        if self._on_response_nodes is not None:
            self._on_response_nodes(*node_ids)

    async def _write(self, command: InboxCommand | None) -> None:
        await append_events(self.db, command, self._events[self._written_count :])
        written: Rows = {}
        deleted: Rows = {}
        for node_id, state in self._states.items():
            collect_changes(self._before[node_id], state, written=written, deleted=deleted)
        await write_rows(self.executor, written=written, deleted=deleted)
        self._written_count = len(self._events)

    @property
    def events(self) -> Sequence[EventEnvelope]:
        """Return the emitted events in order, without those that :meth:`flush` has written."""
        return tuple(self._events)
