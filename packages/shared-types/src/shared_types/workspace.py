"""Define a model for each table of Workspace (chess studies in trees of nodes), with one field per column.

Each row, including its times, can be computed from the events of its node. The secrets of links are not in
events, and have a table without a model here.
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
    """The kind of a node. A workspace is always the root of its tree; a study has no child nodes."""

    WORKSPACE = "workspace"
    FOLDER = "folder"
    STUDY = "study"


class Visibility(StrEnum):
    """The users that may read a node.

    PRIVATE: only the owner. SHARED: also users with a grant, and users of a share link. PUBLIC: all users.
    """

    PRIVATE = "private"
    SHARED = "shared"
    PUBLIC = "public"


class Role(StrEnum):
    """The rights of a user on a node and below it, from least to most."""

    VIEWER = "viewer"
    COMMENTER = "commenter"
    EDITOR = "editor"
    ADMIN = "admin"
    OWNER = "owner"

    @property
    def rank(self) -> int:
        """Position from 0 (VIEWER) to 4 (OWNER); a role includes the rights of all roles of lower rank."""
        return _RANKS[self]


_RANKS = {role: rank for rank, role in enumerate(Role)}


class ThreadKind(StrEnum):
    """The purpose of a discussion."""

    QUESTION = "question"
    SUGGESTION = "suggestion"
    NOTE = "note"


class WorkspaceEvent(StrEnum):
    """Types of events of Workspace, see docs/reference/workspace.md."""

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
    #: Owner of the tree when the node was created, moved or restored. Access is decided by the owner of the
    #: tree's root.
    owner_id: str
    title: str
    description: str = ""
    #: Position among the siblings; equal positions are ordered by id.
    position: int = 0
    layout: Document | None = None
    #: Null: inherited from the nearest ancestor with a value.
    visibility: Visibility | None = None
    #: Compared with ``If-Match``, and sent as ETag; increased by changes of the node and of its list of
    #: chapters.
    version: int = 1
    #: Number of the node's events, including those of its chapters, discussions and grants.
    stream_version: int = 1
    created_by: str
    created_at: AwareDatetime
    changed_at: AwareDatetime
    #: This field and the next five are set only on the topmost of the nodes that were trashed together.
    trashed_at: AwareDatetime | None = None
    trashed_by: str | None = None
    trash_reason: str | None = None
    trash_batch_id: UUID | None = None
    #: The number of nodes that were trashed together, including this one.
    trash_count: int | None = None
    #: Ids of the ancestors at the time of trashing, root first.
    trash_path: list[UUID] | None = None


class WorkspaceChapter(_Row):
    """A chapter of a study: a chess game or position with its tree of moves."""

    id: UUID
    node_id: UUID
    position: int
    title: str
    headers: Document = {}
    #: ``{"start": annotation before the first move, "moves": [moves in preorder]}``, see
    #: ``backend.workspace.chess``.
    moves: Document = {}
    version: int = 1
    created_at: AwareDatetime
    changed_at: AwareDatetime


class WorkspaceVersion(_Row):
    """An immutable snapshot of a study."""

    node_id: UUID
    number: int
    label: str = ""
    #: A rollback creates a version, too: number of the version that this rollback restored. Null if a user
    #: saved this version.
    restored_from: int | None = None
    title: str
    description: str = ""
    #: The chapters at that time: id, position, title, headers, moves.
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
    #: Ids of the users that the body mentions.
    mentions: list[str] = []
    author_id: str
    resolved_at: AwareDatetime | None = None
    resolved_by: str | None = None
    pinned: bool = False
    version: int = 1
    created_at: AwareDatetime
    changed_at: AwareDatetime


class WorkspaceReply(_Row):
    """A reply to a discussion or to another reply."""

    id: UUID
    node_id: UUID
    thread_id: UUID
    #: Id of the reply that this reply answers; null for a reply to the thread itself.
    parent_id: UUID | None = None
    depth: int = 1
    body: str
    mentions: list[str] = []
    author_id: str
    #: The user that changed the body last, the author or an admin; null if the body was never changed.
    edited_by: str | None = None
    #: The last 50 earlier bodies, oldest first: ``{"body", "written_by", "written_at"}``.
    history: list[Document] = []
    #: For each emoji the users that reacted with it, in the order of their reactions.
    reactions: dict[str, list[str]] = {}
    version: int = 1
    created_at: AwareDatetime
    changed_at: AwareDatetime
    #: Time at which the body was deleted; null if not deleted. The row is kept while this reply has replies.
    deleted_at: AwareDatetime | None = None


class WorkspaceGrant(_Row):
    """The role of a user on a node and below it."""

    node_id: UUID
    user_id: str
    role: Role
    granted_by: str
    created_at: AwareDatetime
    changed_at: AwareDatetime


class WorkspaceLink(_Row):
    """A link, which gives each user with its token a role on the node; another table has the token's hash."""

    id: UUID
    node_id: UUID
    role: Role
    has_password: bool = False
    #: Null: the link is valid until it is revoked.
    expires_at: AwareDatetime | None = None
    created_by: str
    created_at: AwareDatetime
