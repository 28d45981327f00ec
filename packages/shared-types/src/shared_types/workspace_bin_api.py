"""Define response bodies of the recycle bin."""

from uuid import UUID

from pydantic import AwareDatetime, BaseModel

from shared_types.workspace import NodeKind
from shared_types.workspace_api import NodeView

__all__ = ("FormerPlace", "PurgeCounts", "RestoredNode", "TrashItem", "TrashPage")


class FormerPlace(BaseModel):
    """The parent of a node at the time of trashing."""

    #: Null if the sender may not read the parent.
    id: UUID | None
    #: Null if the parent was purged meanwhile, or the sender may not read the parent.
    title: str | None


class TrashItem(BaseModel):
    """Nodes that were trashed together, represented by the topmost of them."""

    id: UUID
    kind: NodeKind
    title: str
    trashed_at: AwareDatetime
    trashed_by: str
    reason: str | None
    batch_id: UUID
    #: Number of nodes that were trashed together.
    count: int
    #: Null if the node was a root.
    former_parent: FormerPlace | None
    #: When the automatic purge may begin; null for never.
    purge_at: AwareDatetime | None
    may_restore: bool
    may_purge: bool


class TrashPage(BaseModel):
    """A page of the bin, most recently trashed first."""

    items: list[TrashItem]
    #: Null on the last page.
    next_cursor: str | None = None


class RestoredNode(NodeView):
    """A restored node and its parent."""

    #: The present parent; null if the node is a root, or the sender may not read the parent.
    restored_to: UUID | None
    #: Whether the node has another parent than before, because the former parent was purged, is in the bin,
    #: or is in the tree of another owner.
    fallback: bool
    #: The number of restored nodes, including this one.
    count: int


class PurgeCounts(BaseModel):
    """The numbers of rows that a purge deletes, and of rows whose content it erases."""

    nodes: int
    chapters: int
    versions: int
    threads: int
    replies: int
    grants: int
    links: int
    #: Rows of events, commands and tasks are kept without their content.
    events: int
    commands: int
    tasks: int
    #: Responses stored under idempotency keys.
    stored_answers: int
