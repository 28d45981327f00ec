"""What readers of a node are told of its events; pure.

An event holds all that its rows are made of: words that were deleted since, who may do what, where in the
tree of its owner a node stood. Readers are told what was done to what, by ids, moves and the names of the
fields that changed, and no text that can be taken away; that they read by its route, as it is now.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from relaybox.events import RecordedEvent
from shared_types.events import EventTarget
from shared_types.workspace import Role, WorkspaceEvent
from shared_types.workspace_activity_api import Activity, ActivityTarget

from backend.workspace.access import Access

__all__ = ("activity_entry", "redact_for_reader")

_NODE: Final = frozenset(
    {
        *("kind", "parent_id", "position", "visibility"),
        *("batch_id", "count", "fallback"),
    }
)
_DISCUSSION: Final = frozenset(
    {
        *("thread_id", "reply_id", "chapter_id", "move_path", "kind", "parent_id", "depth"),
        *("emoji", "answered", "emptied", "replies"),
    }
)
_ACL: Final = frozenset({"user_id", "role", "link_id", "has_password", "expires_at"})
_STUDY: Final = _NODE | {
    *("chapter_id", "move_path", "uci", "san", "ply", "fen"),
    # The label of a version is there for good, as the version is.
    *("chapters", "games", "skipped_count", "number", "label", "restored_from", "studies", "bytes"),
}
#: By the first word of an event's name: what of its payload a reader is told.
_TOLD: Final[Mapping[str, frozenset[str]]] = {
    "node": _NODE,
    "study": _STUDY,
    "discussion": _DISCUSSION,
    "acl": _ACL,
}

#: Families whose ``parent_id`` is a node.
_PLACED: Final = frozenset({"node", "study"})
#: What says by the fields it has what changed: the names are told.
_CHANGES: Final = frozenset({WorkspaceEvent.NODE_UPDATED, WorkspaceEvent.DISCUSSION_THREAD_UPDATED})
_CHANGED: Final = ("title", "description", "visibility", "kind", "body")

_SUMMARIES: Final[Mapping[WorkspaceEvent, str]] = {
    WorkspaceEvent.NODE_CREATED: "made this {kind}",
    WorkspaceEvent.NODE_UPDATED: "changed {changes}",
    WorkspaceEvent.NODE_MOVED: "moved it to another place",
    WorkspaceEvent.NODE_SOFT_DELETED: "put it into the bin",
    WorkspaceEvent.NODE_RESTORED: "took it out of the bin",
    WorkspaceEvent.NODE_PERMANENTLY_DELETED: "purged it",
    WorkspaceEvent.LAYOUT_UPDATED: "changed the layout",
    WorkspaceEvent.STUDY_CREATED: "made this study",
    WorkspaceEvent.PGN_IMPORTED: "imported PGN",
    WorkspaceEvent.PGN_EXPORTED: "exported it as PGN",
    WorkspaceEvent.CHAPTER_CREATED: "added a chapter",
    WorkspaceEvent.MOVE_ADDED: "added the move {san}",
    WorkspaceEvent.MOVE_DELETED: "removed the move {move}",
    WorkspaceEvent.VARIATION_PROMOTED: "promoted the variation {move}",
    WorkspaceEvent.VARIATION_DEMOTED: "demoted the variation {move}",
    WorkspaceEvent.ANNOTATION_UPDATED: "annotated a move",
    WorkspaceEvent.STUDY_SNAPSHOT_CREATED: "kept version {number}",
    WorkspaceEvent.STUDY_ROLLED_BACK: "went back to version {restored_from}",
    WorkspaceEvent.DISCUSSION_THREAD_CREATED: "began a {kind}",
    WorkspaceEvent.DISCUSSION_THREAD_UPDATED: "changed a discussion",
    WorkspaceEvent.DISCUSSION_THREAD_RESOLVED: "resolved a discussion",
    WorkspaceEvent.DISCUSSION_THREAD_REOPENED: "opened a discussion again",
    WorkspaceEvent.DISCUSSION_THREAD_PINNED: "pinned a discussion",
    WorkspaceEvent.DISCUSSION_THREAD_UNPINNED: "unpinned a discussion",
    WorkspaceEvent.DISCUSSION_THREAD_DELETED: "deleted a discussion",
    WorkspaceEvent.DISCUSSION_REPLY_ADDED: "replied",
    WorkspaceEvent.DISCUSSION_REPLY_EDITED: "edited a reply",
    WorkspaceEvent.DISCUSSION_REPLY_DELETED: "deleted a reply",
    WorkspaceEvent.DISCUSSION_REACTION_ADDED: "reacted with {emoji}",
    WorkspaceEvent.DISCUSSION_REACTION_REMOVED: "took {emoji} back",
    WorkspaceEvent.ACL_SHARED: "shared it",
    WorkspaceEvent.ACL_REVOKED: "stopped sharing it with somebody",
    WorkspaceEvent.ACL_ROLE_CHANGED: "changed somebody's role",
    WorkspaceEvent.ACL_LINK_CREATED: "made a link to it",
    WorkspaceEvent.ACL_LINK_REVOKED: "revoked a link to it",
}
_ERASED: Final = "did something that was erased"


def redact_for_reader(event: RecordedEvent, access: Access) -> RecordedEvent:
    """*event* with the payload that somebody with *access* is told; never what people wrote.

    ``changed`` has the names of what a change was about, where its type does not say so. With whom a node is
    shared is told to admins, and its parent to readers of the parent. An erased event stays as it is.
    """
    if event.erased:
        return event
    family = event.type.partition(".")[0]
    told = _TOLD[family] if family != "acl" or access.may(Role.ADMIN) else frozenset[str]()
    payload = {name: value for name, value in event.payload.items() if name in told}
    if family in _PLACED and "parent_id" in payload:
        payload["parent_id"] = _parent_told(payload["parent_id"], access)
    if event.type in _CHANGES:
        payload["changed"] = [name for name in _CHANGED if name in event.payload]
    return replace(event, payload=payload)


def _parent_told(parent_id: Any, access: Access) -> Any:
    """Return *parent_id* for readers of that node, else null; a former parent for the tree's owner alone."""
    told = access.role is Role.OWNER or access.may_read_above(parent_id)
    return parent_id if told else None


def activity_entry(event: RecordedEvent, access: Access) -> Activity:
    """*event* as a line of the activity that somebody with *access* reads."""
    type_, payload = WorkspaceEvent(event.type), redact_for_reader(event, access).payload
    return Activity(
        event_id=event.event_id,
        version=event.version,
        type=type_,
        actor=event.metadata.get("user_id"),
        at=event.created_at,
        target=_target(type_, event.aggregate_id, payload),
        summary=_ERASED if event.erased else _summary(type_, payload),
        erased=event.erased,
    )


def _target(type_: WorkspaceEvent, node_id: str, payload: Mapping[str, Any]) -> ActivityTarget:
    """The finest thing that is told."""
    for kind, names in (
        (EventTarget.DISCUSSION, ("reply_id", "thread_id")),
        (EventTarget.CHAPTER, ("chapter_id",)),
        (EventTarget.SHARE, ("link_id", "user_id")),
    ):
        for name in names:
            if name in payload:
                return ActivityTarget(type=kind, id=payload[name])
    study = type_.startswith("study.")
    return ActivityTarget(type=EventTarget.STUDY if study else EventTarget.NODE, id=node_id)


def _summary(type_: WorkspaceEvent, payload: Mapping[str, Any]) -> str:
    # Not the path: it names all the moves before.
    move = str(payload.get("move_path", "")).rpartition(".")[2]
    changes = " and ".join(payload.get("changed", ()))
    return _SUMMARIES[type_].format_map({**payload, "move": move, "changes": changes})
