"""The rows of one node, and the registry of functions that apply events to them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from relaybox.events import EventType, EventTypes
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

__all__ = (
    "AGGREGATE_TYPE",
    "EVENT_TYPES",
    "EventHandler",
    "NodeEvent",
    "NodeState",
    "apply_event",
    "handles",
)

#: A node with everything attached to it is one aggregate.
AGGREGATE_TYPE: Final = "WORKSPACE_NODE"
#: The versions in which payloads are written, and in which all readers get them.
EVENT_TYPES: Final = EventTypes(EventType(one) for one in WorkspaceEvent)


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeEvent:
    """One event of a node, with the fields that rows depend on."""

    type: WorkspaceEvent
    node_id: UUID
    payload: Mapping[str, Any]
    actor: str
    #: ``created_at`` of the event, the time of its transaction.
    at: datetime
    #: The version of the stream after this event.
    version: int

    def id(self, name: str) -> UUID:
        """Return the field *name* of the payload as an id."""
        return UUID(self.payload[name])


@dataclass(slots=True)
class NodeState:
    """The rows of one node by their keys: in a command those that it has loaded, in a rebuild all of them.

    Rows are immutable: a row has changed if it is another object than before.
    """

    node: WorkspaceNode | None = None
    chapters: dict[UUID, WorkspaceChapter] = field(default_factory=dict[UUID, WorkspaceChapter])
    versions: dict[int, WorkspaceVersion] = field(default_factory=dict[int, WorkspaceVersion])
    threads: dict[UUID, WorkspaceThread] = field(default_factory=dict[UUID, WorkspaceThread])
    replies: dict[UUID, WorkspaceReply] = field(default_factory=dict[UUID, WorkspaceReply])
    grants: dict[str, WorkspaceGrant] = field(default_factory=dict[str, WorkspaceGrant])
    links: dict[UUID, WorkspaceLink] = field(default_factory=dict[UUID, WorkspaceLink])

    def copy(self) -> "NodeState":
        """Return a copy that later changes do not affect."""
        return NodeState(
            node=self.node,
            chapters=dict(self.chapters),
            versions=dict(self.versions),
            threads=dict(self.threads),
            replies=dict(self.replies),
            grants=dict(self.grants),
            links=dict(self.links),
        )

    @property
    def present(self) -> WorkspaceNode:
        """The row of the node, which must exist."""
        assert self.node is not None, "the node has an event before its creation"
        return self.node

    def change_node(self, event: NodeEvent, **fields: Any) -> None:
        """Change *fields* of the node's row and increment its version, which is its ETag."""
        node = self.present
        update = {**fields, "version": node.version + 1, "changed_at": event.at}
        self.node = node.model_copy(update=update)


EventHandler = Callable[[NodeState, NodeEvent], None]
_HANDLERS: Final[dict[WorkspaceEvent, EventHandler]] = {}


def handles(*types: WorkspaceEvent) -> Callable[[EventHandler], EventHandler]:
    """Register a function that applies events of *types*."""

    def declare(handler: EventHandler) -> EventHandler:
        for one in types:
            assert one not in _HANDLERS, f"{one} has two handlers"
            _HANDLERS[one] = handler
        return handler

    return declare


def apply_event(state: NodeState, event: NodeEvent) -> None:
    """Apply the next event of a node to its rows, and set the ``stream_version`` of the node.

    Raises:
        KeyError: A row that the event is about is missing, or the type has no handler.
    """
    _HANDLERS[event.type](state, event)
    if state.node is not None:
        state.node = state.node.model_copy(update={"stream_version": event.version})
