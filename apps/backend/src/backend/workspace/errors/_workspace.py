"""Why a workspace refuses; each reason has its own ``error_code``.

::

    WorkspaceError
    ├── NodeNotFound              404: it does not exist, or who asks may not read it
    ├── ResourceNotFound             404: a chapter, thread, reply, …; of a hidden node too
    ├── RoleMissing               403
    ├── NotTheAuthor              403: the words of somebody else
    ├── IfMatchMissing            428
    ├── VersionStale              412, with the current version
    ├── TitleTaken                409, with the id of the study that has it
    ├── NodeTrashed               409
    ├── NodeNotTrashed            409
    ├── NodeTrashedWithAncestor   409, with the node that went into the bin
    ├── ChapterFull               422
    ├── VersionRefused            409: a study that cannot be kept as it is
    │   ├── VersionsFull
    │   └── VersionTooLarge
    ├── AlreadyShared             409
    ├── ShareLimitReached         409
    ├── GrantRefused              422
    ├── ShareTokenInvalid         401
    ├── LinkNotFound              404: unknown, expired, revoked, or where it leads is not to be read
    ├── LinkPasswordWrong         403
    ├── LinkTriesExceeded         429, with when to try again
    ├── TooManyPasswords          429
    ├── DiscussionRefused         422: what a discussion cannot take
    │   ├── ReplyTooDeep
    │   ├── DiscussionFull
    │   ├── EmojiInvalid
    │   └── ReactionsFull
    └── TreeRefused               422: what a tree cannot be
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
    """Base of what a workspace refuses; nothing was written."""

    error_code = "WORKSPACE_ERROR"


class NodeNotFound(WorkspaceError):
    """Raised when a node does not exist, is in the bin, or is not to be read by who asks (G81)."""

    error_code = "NODE_NOT_FOUND"

    def __init__(self) -> None:
        # Without the id: what is not there and what is somebody else's are answered byte for byte the same.
        super().__init__("there is no such node; check the id, and that it is shared with you")


class ResourceNotFound(WorkspaceError):
    """Raised for a missing or hidden chapter, thread, reply, version, grant, link or task (G81)."""

    error_code = "NOT_FOUND_IN_NODE"

    def __init__(self, what: str) -> None:
        super().__init__(f"there is no such {what}; check the id")


@contextmanager
def as_resource_not_found(thing: str) -> Generator[None]:
    """Raise ResourceNotFound for a *thing* whose node is not found, or is hidden from the caller."""
    try:
        yield
    except NodeNotFound:
        raise ResourceNotFound(thing) from None


class RoleMissing(WorkspaceError):
    """Raised when somebody may read a node, but not do this to it."""

    error_code = "ROLE_MISSING"

    def __init__(self, needed: Role) -> None:
        super().__init__(f"this needs the role {needed}; ask an admin of the node for it")


class NotTheAuthor(WorkspaceError):
    """Raised when somebody would change words that only their author changes."""

    error_code = "NOT_THE_AUTHOR"

    def __init__(self) -> None:
        super().__init__("kind, title and body are the author's; answer it, or delete it as an editor")


class IfMatchMissing(WorkspaceError):
    """Raised when a route wants to know which version a change is meant for (RFC 6585, section 3)."""

    error_code = "IF_MATCH_MISSING"

    def __init__(self) -> None:
        super().__init__("this needs the header If-Match with the ETag of what you have read")


class IfMatchMalformed(WorkspaceError):
    """Raised when ``If-Match`` is neither ``*`` nor a list of entity tags (RFC 9110, section 13.1.1)."""

    error_code = "IF_MATCH_INVALID"

    def __init__(self) -> None:
        super().__init__(
            'If-Match is * or the ETag of what you have read, with its quotation marks ("3"); correct it'
        )


class IfMatchWeak(WorkspaceError):
    """Raised when ``If-Match`` has weak tags alone, which never match (RFC 9110, section 13.1.1)."""

    error_code = "IF_MATCH_WEAK"

    def __init__(self) -> None:
        super().__init__(
            'If-Match compares strongly, so that a weak tag (W/"3") matches nothing; send the ETag as it was '
            'answered ("3"), and check whether a proxy has weakened it'
        )


class VersionStale(WorkspaceError):
    """Raised when what a change is meant for has changed since (RFC 9110, section 13.1.1)."""

    error_code = "VERSION_STALE"

    def __init__(self, current: int) -> None:
        super().__init__(f"it is at version {current} now; read it again and decide anew")
        self.current = current


class TitleTaken(WorkspaceError):
    """Raised when another live study of the folder has the title; who may not read it is not told its id."""

    error_code = "TITLE_TAKEN"

    def __init__(self, blocking_id: UUID | None) -> None:
        study = "a study" if blocking_id is None else f"study {blocking_id}"
        super().__init__(f"{study} in the same folder has this title; choose another, or rename it")
        self.blocking_id = blocking_id


class NodeTrashed(WorkspaceError):
    """Raised when a node is in the bin already."""

    error_code = "NODE_TRASHED"

    def __init__(self) -> None:
        super().__init__("the node is in the bin already; restore it first")


class NodeNotTrashed(WorkspaceError):
    """Raised when a node that is to be restored or purged is not in the bin."""

    error_code = "NODE_NOT_TRASHED"

    def __init__(self) -> None:
        super().__init__("the node is not in the bin: nothing to restore or purge")


class NodeTrashedWithAncestor(WorkspaceError):
    """Raised when a node is in the bin because an ancestor was trashed."""

    error_code = "NODE_TRASHED_WITH_ANCESTOR"

    def __init__(self, batch_root: UUID) -> None:
        super().__init__(f"the node went into the bin with {batch_root}; do this to that one")
        self.batch_root = batch_root


class ChapterFull(WorkspaceError):
    """Raised when a chapter would be larger than one may be."""

    error_code = "CHAPTER_FULL"

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"a chapter takes at most {bytes_max} bytes; go on in another chapter")


class VersionRefused(WorkspaceError):
    """Base of the reasons for which a study cannot be kept as it is; nothing of it was."""

    error_code = "VERSION_REFUSED"


class VersionsFull(VersionRefused):
    """Raised when a study has as many versions as it may have."""

    error_code = "VERSIONS_FULL"

    def __init__(self, versions_max: int) -> None:
        super().__init__(
            f"a study has at most {versions_max} versions; export it and import that as a new study"
        )


class VersionTooLarge(VersionRefused):
    """Raised when a study has grown too large to be kept as a version."""

    error_code = "VERSION_TOO_LARGE"

    def __init__(self, bytes_max: int) -> None:
        mebibytes = bytes_max // (1024 * 1024)
        super().__init__(f"a version takes at most {mebibytes} MiB; remove moves, or go on in another study")


class AlreadyShared(WorkspaceError):
    """Raised when somebody has a grant on a node already."""

    error_code = "ALREADY_SHARED"

    def __init__(self) -> None:
        super().__init__("the node is shared with this user already; change the role of that grant by PUT")


class ShareLimitReached(WorkspaceError):
    """Raised when a node has as many grants or links as it may have."""

    error_code = "SHARE_LIMIT_REACHED"

    def __init__(self, what: str, most: int) -> None:
        super().__init__(f"a node has at most {most} {what}; revoke some, or share a folder above it")


class GrantRefused(WorkspaceError):
    """Raised when a grant is for oneself or for the owner."""

    error_code = "GRANT_REFUSED"


class ShareTokenInvalid(WorkspaceError):
    """Raised when a request comes with a share token that is none of ours, or too old."""

    error_code = "SHARE_TOKEN_INVALID"

    def __init__(self) -> None:
        super().__init__(
            "the share token is not valid any more; open the link again, or leave the header out"
        )


class LinkNotFound(WorkspaceError):
    """Raised for a link that is unknown, revoked or expired, or leads to what is in the bin or private."""

    error_code = "LINK_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__(
            "this link leads nowhere, or does not any more; ask who gave it to you for a new one"
        )


class LinkPasswordWrong(WorkspaceError):
    """Raised when a link is opened without its password."""

    error_code = "LINK_PASSWORD_WRONG"

    def __init__(self) -> None:
        super().__init__("this is not the link's password; ask who gave it to you")


class LinkTriesExceeded(WorkspaceError):
    """Raised when a link was opened with a wrong password too often; also with the right one, for a while."""

    error_code = "LINK_TRIES_EXCEEDED"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many wrong passwords; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class TooManyPasswords(WorkspaceError):
    """Raised when the process, one link or one person has too many passwords to hash at a time."""

    error_code = "TOO_MANY_PASSWORDS"

    def __init__(self) -> None:
        super().__init__("Too many passwords are being hashed; send the request again in a moment")


class DiscussionRefused(WorkspaceError):
    """Base of what a discussion cannot take."""

    error_code = "DISCUSSION_REFUSED"


class ReplyTooDeep(DiscussionRefused):
    """Raised when a reply would stand too many replies below its thread."""

    error_code = "REPLY_TOO_DEEP"

    def __init__(self, depth_max: int) -> None:
        super().__init__(f"replies nest {depth_max} deep; answer the reply above")


class DiscussionFull(DiscussionRefused):
    """Raised when a thread would get more replies than it may have."""

    error_code = "DISCUSSION_FULL"

    def __init__(self, replies_max: int) -> None:
        super().__init__(f"a thread has at most {replies_max} replies; begin another one")


class EmojiInvalid(DiscussionRefused):
    """Raised when a reaction is no emoji."""

    error_code = "EMOJI_INVALID"

    def __init__(self) -> None:
        super().__init__("a reaction is one emoji, percent-encoded as UTF-8 in the path")


class ReactionsFull(DiscussionRefused):
    """Raised when a reply would get more reactions than it may have."""

    error_code = "REACTIONS_FULL"

    def __init__(self, emoji_max: int, reactions_max: int) -> None:
        super().__init__(f"a reply has at most {emoji_max} different emoji and {reactions_max} reactions")


class TreeRefused(WorkspaceError):
    """Base of what a tree of nodes cannot be."""

    error_code = "TREE_REFUSED"


class ParentInvalid(TreeRefused):
    """Raised when a node cannot stand where it is to stand."""

    error_code = "PARENT_INVALID"


class TreeCycle(TreeRefused):
    """Raised when a node would come to stand below itself."""

    error_code = "TREE_CYCLE"

    def __init__(self) -> None:
        super().__init__("a node cannot stand below itself; choose a parent outside of it")


class TreeTooDeep(TreeRefused):
    """Raised when a tree would have more levels than is allowed."""

    error_code = "TREE_TOO_DEEP"

    def __init__(self, levels_max: int) -> None:
        super().__init__(f"a tree has at most {levels_max} levels; choose a parent further up")
