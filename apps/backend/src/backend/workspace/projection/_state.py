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

#: The aggregate type of all events: a node with its chapters, versions, threads, replies, grants and links.
AGGREGATE_TYPE: Final = "WORKSPACE_NODE"
#: All event types. Each has the payload version that is written, and to which readers convert older payloads.
EVENT_TYPES: Final = EventTypes(EventType(one) for one in WorkspaceEvent)


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeEvent:
    """An event of a node, with the fields that are needed to apply the event."""

    type: WorkspaceEvent
    node_id: UUID
    payload: Mapping[str, Any]
    actor: str
    #: ``created_at`` of the event, the time of its transaction.
    at: datetime
    #: The number of the event among the events of its node, from 1.
    version: int

    def id(self, name: str) -> UUID:
        """Return the field *name* of the payload as a UUID."""
        return UUID(self.payload[name])


@dataclass(slots=True)
class NodeState:
    """The rows of one node, by their keys: in a command the loaded rows, in a rebuild all rows.

    Rows are immutable: a change replaces a row by another object.
    """

    #: None before the creation of the node, and after a purge.

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
        """Return the row of the node, which must exist."""
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
    """Return a decorator that registers a function as the one that applies events of *types*."""

    def declare(handler: EventHandler) -> EventHandler:
        for one in types:
            assert one not in _HANDLERS, f"{one} has two handlers"
            _HANDLERS[one] = handler
        return handler

    return declare


def apply_event(state: NodeState, event: NodeEvent) -> None:
    """Apply the next event of a node to its rows, and set the ``stream_version`` of the node.

    Raises:
        KeyError: The row that the event changes is missing, or no function applies this event type.
    """
    _HANDLERS[event.type](state, event)
    if state.node is not None:
        state.node = state.node.model_copy(update={"stream_version": event.version})
