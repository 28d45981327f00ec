"""Select the parts of a node's events that readers, the users who may read the node, may see.

Events contain all data of the node's rows: deleted texts, grants, and the node's place in the owner's tree.
Readers get ids, chess moves and the names of changed fields, but no text that a user can delete: they get the
current texts from the routes of the objects.
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
    # The label is a text that cannot be deleted, because versions cannot be deleted.
    *("chapters", "games", "skipped_count", "number", "label", "restored_from", "studies", "bytes"),
}
#: The fields of a payload that readers may see, by the first part of the event type, such as ``study``.
_VISIBLE_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "node": _NODE,
    "study": _STUDY,
    "discussion": _DISCUSSION,
    "acl": _ACL,
}

#: First parts of event types in whose payload ``parent_id`` is the id of a node.
_WITH_PARENT_NODE: Final = frozenset({"node", "study"})
#: Events whose payload has only the changed fields; readers get the names of these fields.
_UPDATES: Final = frozenset({WorkspaceEvent.NODE_UPDATED, WorkspaceEvent.DISCUSSION_THREAD_UPDATED})
_FIELD_NAMES: Final = ("title", "description", "visibility", "kind", "body")

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
    WorkspaceEvent.ACL_REVOKED: "stopped sharing it with a user",
    WorkspaceEvent.ACL_ROLE_CHANGED: "changed the role of a user",
    WorkspaceEvent.ACL_LINK_CREATED: "made a link to it",
    WorkspaceEvent.ACL_LINK_REVOKED: "revoked a link to it",
}
_ERASED: Final = "made a change that was erased"


def redact_for_reader(event: RecordedEvent, access: Access) -> RecordedEvent:
    """Return *event* with only those fields of its payload that a reader with *access* may see.

    Texts that users can delete are removed. The payload of NODE_UPDATED and DISCUSSION_THREAD_UPDATED gets
    the field ``changed``, a list of the names of the changed fields. Only admins see the fields of grants and
    links. In events of nodes and studies, ``parent_id`` is None if the reader may not read that parent. An
    erased event is returned unchanged.
    """
    if event.erased:
        return event
    family = event.type.partition(".")[0]
    visible = _VISIBLE_FIELDS[family] if family != "acl" or access.may(Role.ADMIN) else frozenset[str]()
    payload = {name: value for name, value in event.payload.items() if name in visible}
    if family in _WITH_PARENT_NODE and "parent_id" in payload:
        payload["parent_id"] = _visible_parent(payload["parent_id"], access)
    if event.type in _UPDATES:
        payload["changed"] = [name for name in _FIELD_NAMES if name in event.payload]
    return replace(event, payload=payload)


def _visible_parent(parent_id: Any, access: Access) -> Any:
    """Return *parent_id* if the reader owns the tree or may read the node with this id; otherwise None."""
    visible = access.role is Role.OWNER or access.may_read_above(parent_id)
    return parent_id if visible else None


def activity_entry(event: RecordedEvent, access: Access) -> Activity:
    """Return *event* as an entry of the activity list of a reader with *access*."""
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
    """Return the most specific object that the event changed and a reader may see, such as a chapter."""
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
    # Show only the last move of the path.
    move = str(payload.get("move_path", "")).rpartition(".")[2]
    changes = " and ".join(payload.get("changed", ()))
    return _SUMMARIES[type_].format_map({**payload, "move": move, "changes": changes})
