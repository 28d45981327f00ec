"""Workspace: chess studies as a tree of nodes; one model per table, field for column.

A row is what its own node's events say, and nothing else: times are the events', and every column has a
place in some event but the secrets of links, which are in none.
"""

from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict

__all__ = (
    "NodeKind",
    "Role",
    "ThreadKind",
    "Visibility",
    "WorkspaceChapter",
    "WorkspaceEvent",
    "WorkspaceGrant",
    "WorkspaceLink",
    "WorkspaceNode",
    "WorkspaceReply",
    "WorkspaceThread",
    "WorkspaceVersion",
)

Document = dict[str, Any]


class NodeKind(StrEnum):
    """What a node is: a workspace is always a root, a study always a leaf."""

    WORKSPACE = "workspace"
    FOLDER = "folder"
    STUDY = "study"


class Visibility(StrEnum):
    """Who may read: the owner alone (grants rest), the owner and those with a grant, or anyone."""

    PRIVATE = "private"
    SHARED = "shared"
    PUBLIC = "public"


class Role(StrEnum):
    """What somebody may do on a node and below it, from least to most."""

    VIEWER = "viewer"
    COMMENTER = "commenter"
    EDITOR = "editor"
    ADMIN = "admin"
    OWNER = "owner"

    @property
    def rank(self) -> int:
        """0 for the least; a role may do all that a lower one may."""
        return _RANKS[self]


_RANKS = {role: rank for rank, role in enumerate(Role)}


class ThreadKind(StrEnum):
    """What a discussion is for."""

    QUESTION = "question"
    SUGGESTION = "suggestion"
    NOTE = "note"


class WorkspaceEvent(StrEnum):
    """Every event of a workspace, by its name on the wire (workspace.md, Events)."""

    NODE_CREATED = "node.created"
    NODE_UPDATED = "node.updated"
    NODE_MOVED = "node.moved"
    NODE_SOFT_DELETED = "node.trashed"
    NODE_RESTORED = "node.restored"
    NODE_PERMANENTLY_DELETED = "node.purged"
    LAYOUT_UPDATED = "node.layout_updated"
    STUDY_CREATED = "study.created"
    PGN_IMPORTED = "study.pgn_imported"
    PGN_EXPORTED = "study.pgn_exported"
    CHAPTER_CREATED = "study.chapter.created"
    MOVE_ADDED = "study.chapter.move_added"
    MOVE_DELETED = "study.chapter.move_deleted"
    VARIATION_PROMOTED = "study.chapter.variation_promoted"
    VARIATION_DEMOTED = "study.chapter.variation_demoted"
    ANNOTATION_UPDATED = "study.chapter.annotation_updated"
    STUDY_SNAPSHOT_CREATED = "study.snapshot_created"
    STUDY_ROLLED_BACK = "study.rolled_back"
    DISCUSSION_THREAD_CREATED = "discussion.thread.created"
    DISCUSSION_THREAD_UPDATED = "discussion.thread.updated"
    DISCUSSION_THREAD_RESOLVED = "discussion.thread.resolved"
    DISCUSSION_THREAD_REOPENED = "discussion.thread.reopened"
    DISCUSSION_THREAD_PINNED = "discussion.thread.pinned"
    DISCUSSION_THREAD_UNPINNED = "discussion.thread.unpinned"
    DISCUSSION_THREAD_DELETED = "discussion.thread.deleted"
    DISCUSSION_REPLY_ADDED = "discussion.reply.added"
    DISCUSSION_REPLY_EDITED = "discussion.reply.edited"
    DISCUSSION_REPLY_DELETED = "discussion.reply.deleted"
    DISCUSSION_REACTION_ADDED = "discussion.reaction.added"
    DISCUSSION_REACTION_REMOVED = "discussion.reaction.removed"
    ACL_SHARED = "acl.shared"
    ACL_REVOKED = "acl.revoked"
    ACL_ROLE_CHANGED = "acl.role_changed"
    ACL_LINK_CREATED = "acl.link_created"
    ACL_LINK_REVOKED = "acl.link_revoked"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True, hide_input_in_errors=True)


class WorkspaceNode(_Row):
    """A workspace, a folder or a study."""

    id: UUID
    kind: NodeKind
    #: Null for the root of a tree.
    parent_id: UUID | None = None
    #: Of the tree when the node came into it; only a root's counts.
    owner_id: str
    title: str
    description: str = ""
    #: Among its siblings; equal ones stand in the order of their ids.
    position: int = 0
    layout: Document | None = None
    #: Null: as the nearest ancestor that says.
    visibility: Visibility | None = None
    #: The ETag: changes of the node itself and of its list of chapters.
    version: int = 1
    #: Events of the node so far, its chapters', discussions' and grants' included.
    stream_version: int = 1
    created_by: str
    created_at: AwareDatetime
    changed_at: AwareDatetime
    #: Set, with the next five, at the root of what was trashed together, and there alone.
    trashed_at: AwareDatetime | None = None
    trashed_by: str | None = None
    trash_reason: str | None = None
    trash_batch_id: UUID | None = None
    #: Nodes that went into the bin with it, itself included.
    trash_count: int | None = None
    #: Its ancestors when it was trashed, root first.
    trash_path: list[UUID] | None = None


class WorkspaceChapter(_Row):
    """A game or a position of a study, with its tree of moves."""

    id: UUID
    node_id: UUID
    position: int
    title: str
    headers: Document = {}
    #: ``{"start": annotation, "moves": [in preorder]}``, see ``backend.workspace.chess``.
    moves: Document = {}
    version: int = 1
    created_at: AwareDatetime
    changed_at: AwareDatetime


class WorkspaceVersion(_Row):
    """A snapshot of a study; never changed."""

    node_id: UUID
    number: int
    label: str = ""
    #: The version that a rollback brought back; null for a snapshot that somebody asked for.
    restored_from: int | None = None
    title: str
    description: str = ""
    #: Chapters as they were: id, position, title, headers, moves.
    chapters: list[Document]
    created_by: str
    created_at: AwareDatetime


class WorkspaceThread(_Row):
    """A discussion on a node, a chapter or a move."""

    id: UUID
    node_id: UUID
    chapter_id: UUID | None = None
    move_path: str | None = None
    kind: ThreadKind
    title: str = ""
    body: str
    #: Users whom the body names.
    mentions: list[str] = []
    author_id: str
    resolved_at: AwareDatetime | None = None
    resolved_by: str | None = None
    pinned: bool = False
    version: int = 1
    created_at: AwareDatetime
    changed_at: AwareDatetime


class WorkspaceReply(_Row):
    """An answer in a discussion, or to another answer."""

    id: UUID
    node_id: UUID
    thread_id: UUID
    #: The reply it answers; null for one to the thread itself.
    parent_id: UUID | None = None
    depth: int = 1
    body: str
    mentions: list[str] = []
    author_id: str
    #: Who wrote the present body, where it is not the first one: the author or an admin.
    edited_by: str | None = None
    #: The last 50 earlier bodies, oldest first: ``{"body", "written_by", "written_at"}``.
    history: list[Document] = []
    #: Emoji to the people who reacted with it, in the order in which they did.
    reactions: dict[str, list[str]] = {}
    version: int = 1
    created_at: AwareDatetime
    changed_at: AwareDatetime
    #: Its body is gone; it keeps its place while it has answers.
    deleted_at: AwareDatetime | None = None


class WorkspaceGrant(_Row):
    """What somebody may do on a node and below it."""

    node_id: UUID
    user_id: str
    role: Role
    granted_by: str
    created_at: AwareDatetime
    changed_at: AwareDatetime


class WorkspaceLink(_Row):
    """A link that gives a role to whoever has it; its token is stored nowhere, its hash apart."""

    id: UUID
    node_id: UUID
    role: Role
    has_password: bool = False
    #: Null: until it is revoked.
    expires_at: AwareDatetime | None = None
    created_by: str
    created_at: AwareDatetime
