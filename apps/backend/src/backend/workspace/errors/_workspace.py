"""Errors of nodes, studies, discussions and sharing.

::

    WorkspaceError
    ├── NodeNotFound              404: the node does not exist, or the requester may not read it
    ├── ResourceNotFound          404: the same for a chapter, version, thread, reply, grant, link or task
    ├── RoleMissing               403
    ├── NotTheAuthor              403: another user wrote the text
    ├── IfMatchMissing            428; IfMatchMalformed has 400, IfMatchWeak has 412
    ├── VersionStale              412: the response has the current version
    ├── TitleTaken                409: the response has the id of the study with this title
    ├── NodeTrashed               409
    ├── NodeNotTrashed            409
    ├── NodeTrashedWithAncestor   409: the response has the id of the ancestor that was trashed
    ├── ChapterFull               422
    ├── VersionRefused            409: no version can be created
    │   ├── VersionsFull
    │   └── VersionTooLarge
    ├── AlreadyShared             409
    ├── ShareLimitReached         409
    ├── GrantRefused              422
    ├── ShareTokenInvalid         401
    ├── LinkNotFound              404: unknown, expired or revoked, or its node cannot be read
    ├── LinkPasswordWrong         403
    ├── LinkTriesExceeded         429: Retry-After has the seconds until the next attempt
    ├── TooManyPasswords          429
    ├── DiscussionRefused         422: a limit of discussions
    │   ├── ReplyTooDeep
    │   ├── DiscussionFull
    │   ├── EmojiInvalid
    │   └── ReactionsFull
    └── TreeRefused               422: a limit of trees
        ├── ParentInvalid
        ├── TreeCycle
        └── TreeTooDeep
"""

from collections.abc import Generator
from contextlib import contextmanager
from uuid import UUID

from relaybox.errors import RelayboxError
from shared_types.workspace import Role

__all__ = (
    "AlreadyShared",
    "ChapterFull",
    "DiscussionFull",
    "DiscussionRefused",
    "EmojiInvalid",
    "GrantRefused",
    "IfMatchMalformed",
    "IfMatchMissing",
    "IfMatchWeak",
    "LinkNotFound",
    "LinkPasswordWrong",
    "LinkTriesExceeded",
    "NodeNotFound",
    "NodeNotTrashed",
    "NodeTrashed",
    "NodeTrashedWithAncestor",
    "NotTheAuthor",
    "ParentInvalid",
    "ReactionsFull",
    "ReplyTooDeep",
    "ResourceNotFound",
    "RoleMissing",
    "ShareLimitReached",
    "ShareTokenInvalid",
    "TitleTaken",
    "TooManyPasswords",
    "TreeCycle",
    "TreeRefused",
    "TreeTooDeep",
    "VersionRefused",
    "VersionStale",
    "VersionTooLarge",
    "VersionsFull",
    "WorkspaceError",
    "as_resource_not_found",
)


class WorkspaceError(RelayboxError):
    """Base class of the errors of a workspace; no row was written."""

    error_code = "WORKSPACE_ERROR"


class NodeNotFound(WorkspaceError):
    """Raised when a node does not exist, is in the bin, or the requester may not read it (G81)."""

    error_code = "NODE_NOT_FOUND"

    def __init__(self) -> None:
        # Without the id: the responses for a missing node and for an unreadable node must be equal.
        super().__init__("there is no such node; check the id, and that the node is shared with you")


class ResourceNotFound(WorkspaceError):
    """Raised when an object of a node does not exist, or the requester may not read the node (G81)."""

    error_code = "NOT_FOUND_IN_NODE"

    def __init__(self, what: str) -> None:
        super().__init__(f"there is no such {what}; check the id")


@contextmanager
def as_resource_not_found(thing: str) -> Generator[None]:
    """Raise ResourceNotFound(*thing*) instead of a NodeNotFound that the ``with`` block raises."""
    try:
        yield
    except NodeNotFound:
        raise ResourceNotFound(thing) from None


class RoleMissing(WorkspaceError):
    """Raised when the requester may read a node, but needs a higher role for this request."""

    error_code = "ROLE_MISSING"

    def __init__(self, needed: Role) -> None:
        super().__init__(f"this request needs the role {needed} on the node; ask an admin for a grant")


class NotTheAuthor(WorkspaceError):
    """Raised when the requester changes kind, title or body of another user's thread."""

    error_code = "NOT_THE_AUTHOR"

    def __init__(self) -> None:
        super().__init__(
            "only the author may change kind, title and body of a thread; reply to the thread instead"
        )


class IfMatchMissing(WorkspaceError):
    """Raised when a request that needs the header ``If-Match`` has none (RFC 6585, section 3)."""

    error_code = "IF_MATCH_MISSING"

    def __init__(self) -> None:
        super().__init__("this request needs the header If-Match with the ETag that you have read")


class IfMatchMalformed(WorkspaceError):
    """Raised when ``If-Match`` is neither ``*`` nor a list of entity tags (RFC 9110, section 13.1.1)."""

    error_code = "IF_MATCH_INVALID"

    def __init__(self) -> None:
        super().__init__(
            'If-Match is malformed; send the ETag that you have read, with its quotation marks ("3"), or *'
        )


class IfMatchWeak(WorkspaceError):
    """Raised when ``If-Match`` has only weak tags, which never match (RFC 9110, section 13.1.1)."""

    error_code = "IF_MATCH_WEAK"

    def __init__(self) -> None:
        super().__init__(
            'If-Match has only weak tags (W/"3"), which match no version; send the ETag without W/ ("3"), '
            "and check whether a proxy has added the W/"
        )


class VersionStale(WorkspaceError):
    """Raised when ``If-Match`` does not contain the current version (RFC 9110, section 13.1.1)."""

    error_code = "VERSION_STALE"

    def __init__(self, current: int) -> None:
        super().__init__(f"the current version is {current}; read the object again and send its ETag")
        self.current = current


class TitleTaken(WorkspaceError):
    """Raised when another live study of the folder has the title."""

    error_code = "TITLE_TAKEN"

    def __init__(self, blocking_id: UUID | None) -> None:
        """*blocking_id*: the id of that study; None if the requester may not read the study."""
        study = "a study" if blocking_id is None else f"study {blocking_id}"
        super().__init__(f"{study} in the same folder has this title; choose another title")
        self.blocking_id = blocking_id


class NodeTrashed(WorkspaceError):
    """Raised when the node to trash is in the bin already."""

    error_code = "NODE_TRASHED"

    def __init__(self) -> None:
        super().__init__("the node is in the bin already; restore it first")


class NodeNotTrashed(WorkspaceError):
    """Raised when the node to restore or purge is not in the bin."""

    error_code = "NODE_NOT_TRASHED"

    def __init__(self) -> None:
        super().__init__("the node is not in the bin; only trashed nodes can be restored or purged")


class NodeTrashedWithAncestor(WorkspaceError):
    """Raised when a node is in the bin because an ancestor was trashed."""

    error_code = "NODE_TRASHED_WITH_ANCESTOR"

    def __init__(self, batch_root: UUID) -> None:
        super().__init__(f"the node was trashed with its ancestor {batch_root}; restore or purge that node")
        self.batch_root = batch_root


class ChapterFull(WorkspaceError):
    """Raised when a change would make a chapter larger than its maximum size."""

    error_code = "CHAPTER_FULL"

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"a chapter has at most {bytes_max} bytes; add the moves to another chapter")


class VersionRefused(WorkspaceError):
    """Base class of errors for which no version of a study is created."""

    error_code = "VERSION_REFUSED"


class VersionsFull(VersionRefused):
    """Raised when a study has the maximum number of versions."""

    error_code = "VERSIONS_FULL"

    def __init__(self, versions_max: int) -> None:
        super().__init__(
            f"a study has at most {versions_max} versions; export it, and import the file as a new study"
        )


class VersionTooLarge(VersionRefused):
    """Raised when a study is too large for a version."""

    error_code = "VERSION_TOO_LARGE"

    def __init__(self, bytes_max: int) -> None:
        mebibytes = bytes_max // (1024 * 1024)
        super().__init__(f"a version has at most {mebibytes} MiB; delete moves or chapters of the study")


class AlreadyShared(WorkspaceError):
    """Raised when the user has a grant on the node already."""

    error_code = "ALREADY_SHARED"

    def __init__(self) -> None:
        super().__init__("the node is shared with this user already; change the role of that grant by PUT")


class ShareLimitReached(WorkspaceError):
    """Raised when a node has the maximum number of grants or links."""

    error_code = "SHARE_LIMIT_REACHED"

    def __init__(self, what: str, most: int) -> None:
        super().__init__(f"a node has at most {most} {what}; revoke some, or share a folder above the node")


class GrantRefused(WorkspaceError):
    """Raised for a grant to the sender or the owner, or if a revocation would raise the sender's role."""

    error_code = "GRANT_REFUSED"


class ShareTokenInvalid(WorkspaceError):
    """Raised when the share token of a request is not valid, or has expired."""

    error_code = "SHARE_TOKEN_INVALID"

    def __init__(self) -> None:
        super().__init__(
            "the share token is not valid or has expired; open the link again, or omit the header"
        )


class LinkNotFound(WorkspaceError):
    """Raised for a link that is unknown, revoked or expired, or whose node is in the bin or private."""

    error_code = "LINK_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("the link is unknown, revoked or expired; ask for a new link")


class LinkPasswordWrong(WorkspaceError):
    """Raised when a link is opened without its password, or with a wrong one."""

    error_code = "LINK_PASSWORD_WRONG"

    def __init__(self) -> None:
        super().__init__("the password of the link is wrong or missing; ask the user who sent the link")


class LinkTriesExceeded(WorkspaceError):
    """Raised while a link refuses all passwords for a time, after too many wrong passwords."""

    error_code = "LINK_TRIES_EXCEEDED"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many wrong passwords for this link; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class TooManyPasswords(WorkspaceError):
    """Raised when a process hashes the maximum number of passwords, in total, for a link or for a user."""

    error_code = "TOO_MANY_PASSWORDS"

    def __init__(self) -> None:
        super().__init__("too many passwords are being hashed; send the request again in a few seconds")


class DiscussionRefused(WorkspaceError):
    """Base class of errors for a request that breaks a rule or a limit of discussions (422)."""

    error_code = "DISCUSSION_REFUSED"


class ReplyTooDeep(DiscussionRefused):
    """Raised when a reply would exceed the maximum depth of nested replies in a thread."""

    error_code = "REPLY_TOO_DEEP"

    def __init__(self, depth_max: int) -> None:
        super().__init__(f"replies nest at most {depth_max} deep; reply to the parent of this reply")


class DiscussionFull(DiscussionRefused):
    """Raised when a thread has the maximum number of replies."""

    error_code = "DISCUSSION_FULL"

    def __init__(self, replies_max: int) -> None:
        super().__init__(f"a thread has at most {replies_max} replies; create another thread")


class EmojiInvalid(DiscussionRefused):
    """Raised when a reaction is not exactly one emoji."""

    error_code = "EMOJI_INVALID"

    def __init__(self) -> None:
        super().__init__("a reaction is one emoji, percent-encoded as UTF-8 in the path")


class ReactionsFull(DiscussionRefused):
    """Raised when a reply has the maximum number of different emoji, or of reactions with any emoji."""

    error_code = "REACTIONS_FULL"

    def __init__(self, emoji_max: int, reactions_max: int) -> None:
        super().__init__(
            f"a reply has at most {emoji_max} different emoji and {reactions_max} reactions; remove one first"
        )


class TreeRefused(WorkspaceError):
    """Base class of errors for a request that breaks a rule or a limit of trees (422)."""

    error_code = "TREE_REFUSED"


class ParentInvalid(TreeRefused):
    """Raised when the kind of a node does not allow the requested parent, or the lack of a parent."""

    error_code = "PARENT_INVALID"


class TreeCycle(TreeRefused):
    """Raised when a move would put a node below itself."""

    error_code = "TREE_CYCLE"

    def __init__(self) -> None:
        super().__init__("a node cannot be moved below itself; choose a parent outside its subtree")


class TreeTooDeep(TreeRefused):
    """Raised when a tree would have too many levels."""

    error_code = "TREE_TOO_DEEP"

    def __init__(self, levels_max: int) -> None:
        super().__init__(f"a tree has at most {levels_max} levels; choose a parent nearer to the root")
