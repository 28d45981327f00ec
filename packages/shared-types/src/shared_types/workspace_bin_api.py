"""Answers about the workspace's recycle bin."""

from uuid import UUID

from pydantic import AwareDatetime, BaseModel

from shared_types.workspace import NodeKind
from shared_types.workspace_api import NodeView

__all__ = ("FormerPlace", "PurgeCounts", "RestoredNode", "TrashItem", "TrashPage")


class FormerPlace(BaseModel):
    """Where something stood when it was trashed."""

    #: Null if the caller may not read it.
    id: UUID | None
    #: Null if it was purged since, or is not to be read by who asks.
    title: str | None


class TrashItem(BaseModel):
    """What was trashed together, by its topmost node."""

    id: UUID
    kind: NodeKind
    title: str
    trashed_at: AwareDatetime
    trashed_by: str
    reason: str | None
    batch_id: UUID
    #: Nodes that went into the bin with it, itself included.
    count: int
    #: Null for what was a root.
    former_parent: FormerPlace | None
    #: From when on it is purged by itself; null for never.
    purge_at: AwareDatetime | None
    may_restore: bool
    may_purge: bool


class TrashPage(BaseModel):
    """A page of the bin, last trashed first."""

    items: list[TrashItem]
    #: Null on the last page.
    next_cursor: str | None = None


class RestoredNode(NodeView):
    """A node that came back, and where to."""

    #: Its parent now; null: it is a root, or the caller may not read the parent.
    restored_to: UUID | None
    #: Whether that is another place than its former one, which is gone or in the bin itself.
    fallback: bool
    #: Nodes that came back, itself included.
    count: int


class PurgeCounts(BaseModel):
    """What a purge takes away, or loses its content by it."""

    nodes: int
    chapters: int
    versions: int
    threads: int
    replies: int
    grants: int
    links: int
    #: These stay, without their content.
    events: int
    commands: int
    tasks: int
    #: Answers kept under idempotency keys.
    stored_answers: int
