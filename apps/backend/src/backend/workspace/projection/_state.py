"""The rows of one node, and the table of what each event changes in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

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

__all__ = ("AGGREGATE_TYPE", "EventHandler", "NodeEvent", "NodeState", "apply_event", "handles")

#: A node with everything attached to it is one aggregate.
AGGREGATE_TYPE: Final = "WORKSPACE_NODE"


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeEvent:
    """One event of a node, as far as rows depend on it."""

    type: WorkspaceEvent
    node_id: UUID
    payload: Mapping[str, Any]
    actor: str
    #: ``created_at`` of the event: the time of its transaction.
    at: datetime
    #: Of the stream, this event included.
    version: int

    def id(self, name: str) -> UUID:
        """The id under *name* in the payload."""
        return UUID(self.payload[name])


@dataclass(slots=True)
class NodeState:
    """The rows of one node by their keys; a live write holds those it has loaded, a rebuild all of them.

    Rows are never changed in place: a row that is another object than before is one to write.
    """

    node: WorkspaceNode | None = None
    chapters: dict[UUID, WorkspaceChapter] = field(default_factory=dict[UUID, WorkspaceChapter])
    versions: dict[int, WorkspaceVersion] = field(default_factory=dict[int, WorkspaceVersion])
    threads: dict[UUID, WorkspaceThread] = field(default_factory=dict[UUID, WorkspaceThread])
    replies: dict[UUID, WorkspaceReply] = field(default_factory=dict[UUID, WorkspaceReply])
    grants: dict[str, WorkspaceGrant] = field(default_factory=dict[str, WorkspaceGrant])
    links: dict[UUID, WorkspaceLink] = field(default_factory=dict[UUID, WorkspaceLink])

    def copy(self) -> "NodeState":
        """The same rows, apart from what is changed here later."""
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
        """The node, which must be there."""
        assert self.node is not None, "an event before the node was created"
        return self.node

    def change_node(self, event: NodeEvent, **fields: Any) -> None:
        """Give the node *fields*, and a new version: what its ETag stands for has changed."""
        node = self.present
        update = {**fields, "version": node.version + 1, "changed_at": event.at}
        self.node = node.model_copy(update=update)


EventHandler = Callable[[NodeState, NodeEvent], None]
_HANDLERS: Final[dict[WorkspaceEvent, EventHandler]] = {}


def handles(*types: WorkspaceEvent) -> Callable[[EventHandler], EventHandler]:
    """Declare what events of *types* change."""

    def declare(handler: EventHandler) -> EventHandler:
        for one in types:
            assert one not in _HANDLERS, f"{one} is applied twice"
            _HANDLERS[one] = handler
        return handler

    return declare


def apply_event(state: NodeState, event: NodeEvent) -> None:
    """Change *state* by *event*, its next one; the node's ``stream_version`` follows.

    Raises:
        KeyError: a row that the event is about is not there, or nobody applies this type.
    """
    _HANDLERS[event.type](state, event)
    if state.node is not None:
        state.node = state.node.model_copy(update={"stream_version": event.version})
