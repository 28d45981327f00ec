"""Why a workspace refuses; each reason has its own ``error_code``.

::

    WorkspaceError
    ├── NodeNotFound              404: it does not exist, or who asks may not read it
    ├── ThingNotFound             404: a chapter, thread, reply, … of a node that may be read
    ├── RoleMissing               403
    ├── IfMatchMissing            428
    ├── VersionStale              412, with the current version
    ├── TitleTaken                409, with the id of the study that has it
    ├── NodeTrashed               409
    ├── NodeNotTrashed            409
    ├── NodeTrashedWithAncestor   409, with the node that went into the bin
    ├── ChapterFull               422
    └── TreeRefused               422: what a tree cannot be
        ├── ParentInvalid
        ├── TreeCycle
        └── TreeTooDeep
"""

from uuid import UUID

from relaybox.errors import RelayboxError
from relaybox.http import ANSWERS, ErrorAnswer, ErrorAnswers
from relaybox_types.workspace import Role

from backend.workspace._chess_extra import ChessError, ChessNotInstalled, MoveExists

__all__ = (
    "WORKSPACE_ANSWERS",
    "ChapterFull",
    "IfMatchMissing",
    "NodeNotFound",
    "NodeNotTrashed",
    "NodeTrashed",
    "NodeTrashedWithAncestor",
    "ParentInvalid",
    "RoleMissing",
    "ThingNotFound",
    "TitleTaken",
    "TreeCycle",
    "TreeRefused",
    "TreeTooDeep",
    "VersionStale",
    "WorkspaceError",
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


class ThingNotFound(WorkspaceError):
    """Raised when a node has no such chapter, thread, reply, version, grant, link or task."""

    error_code = "NOT_FOUND_IN_NODE"

    def __init__(self, what: str) -> None:
        super().__init__(f"there is no such {what}; check the id")


class RoleMissing(WorkspaceError):
    """Raised when somebody may read a node, but not do this to it."""

    error_code = "ROLE_MISSING"

    def __init__(self, needed: Role) -> None:
        super().__init__(f"this needs the role {needed}; ask an admin of the node for it")


class IfMatchMissing(WorkspaceError):
    """Raised when a route wants to know which version a change is meant for (RFC 6585, section 3)."""

    error_code = "IF_MATCH_MISSING"

    def __init__(self) -> None:
        super().__init__("this needs the header If-Match with the ETag of what you have read")


class VersionStale(WorkspaceError):
    """Raised when what a change is meant for has changed since (RFC 9110, section 13.1.1)."""

    error_code = "VERSION_STALE"

    def __init__(self, current: int) -> None:
        super().__init__(f"it is at version {current} now; read it again and decide anew")
        self.current = current


class TitleTaken(WorkspaceError):
    """Raised when another live study of the folder has the title."""

    error_code = "TITLE_TAKEN"

    def __init__(self, blocking_id: UUID) -> None:
        super().__init__(f"study {blocking_id} in the same folder has this title; choose another one")
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
        super().__init__("the node is not in the bin; trash it first")


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


WORKSPACE_ANSWERS: ErrorAnswers = {
    **ANSWERS,
    NodeNotFound: ErrorAnswer(status=404),
    ThingNotFound: ErrorAnswer(status=404),
    RoleMissing: ErrorAnswer(status=403),
    IfMatchMissing: ErrorAnswer(status=428),
    VersionStale: ErrorAnswer(status=412, fields=lambda error: {"current_version": error.current}),
    TitleTaken: ErrorAnswer(status=409, fields=lambda error: {"blocking_id": str(error.blocking_id)}),
    NodeTrashed: ErrorAnswer(status=409),
    NodeNotTrashed: ErrorAnswer(status=409),
    NodeTrashedWithAncestor: ErrorAnswer(
        status=409, fields=lambda error: {"batch_root_id": str(error.batch_root)}
    ),
    TreeRefused: ErrorAnswer(status=422),
    ChapterFull: ErrorAnswer(status=422),
    ChessNotInstalled: ErrorAnswer(status=501),
    ChessError: ErrorAnswer(status=422),
    MoveExists: ErrorAnswer(status=409),
}
"""How the errors of a workspace are answered, beside the library's."""
