"""Apply events of threads, replies and reactions."""

from datetime import UTC
from typing import Any, Final
from uuid import UUID

from shared_types.workspace import ThreadKind, WorkspaceEvent, WorkspaceReply, WorkspaceThread

from backend.workspace.projection._state import NodeEvent, NodeState, handles

#: Maximum number of earlier bodies in a reply's row; older bodies are only in the events.
_HISTORY_MAX: Final = 50


@handles(WorkspaceEvent.DISCUSSION_THREAD_CREATED)
def _thread_created(state: NodeState, event: NodeEvent) -> None:
    payload = event.payload
    chapter_id = payload.get("chapter_id")
    thread = WorkspaceThread(
        id=event.id("thread_id"),
        node_id=event.node_id,
        chapter_id=UUID(chapter_id) if chapter_id else None,
        move_path=payload.get("move_path"),
        kind=ThreadKind(payload["kind"]),
        title=payload.get("title", ""),
        body=payload["body"],
        mentions=payload.get("mentions", []),
        author_id=event.actor,
        created_at=event.at,
        changed_at=event.at,
    )
    state.threads[thread.id] = thread


@handles(WorkspaceEvent.DISCUSSION_THREAD_UPDATED)
def _thread_updated(state: NodeState, event: NodeEvent) -> None:
    names = ("title", "body", "mentions")
    fields = {name: event.payload[name] for name in names if name in event.payload}
    if "kind" in event.payload:
        fields["kind"] = ThreadKind(event.payload["kind"])
    _change_thread(state, event, **fields)


@handles(WorkspaceEvent.DISCUSSION_THREAD_RESOLVED)
def _resolved(state: NodeState, event: NodeEvent) -> None:
    _change_thread(state, event, resolved_at=event.at, resolved_by=event.actor)


@handles(WorkspaceEvent.DISCUSSION_THREAD_REOPENED)
def _reopened(state: NodeState, event: NodeEvent) -> None:
    _change_thread(state, event, resolved_at=None, resolved_by=None)


@handles(WorkspaceEvent.DISCUSSION_THREAD_PINNED)
def _pinned(state: NodeState, event: NodeEvent) -> None:
    _change_thread(state, event, pinned=True)


@handles(WorkspaceEvent.DISCUSSION_THREAD_UNPINNED)
def _unpinned(state: NodeState, event: NodeEvent) -> None:
    _change_thread(state, event, pinned=False)


@handles(WorkspaceEvent.DISCUSSION_THREAD_DELETED)
def _thread_deleted(state: NodeState, event: NodeEvent) -> None:
    thread_id = event.id("thread_id")
    del state.threads[thread_id]
    for reply in [one for one in state.replies.values() if one.thread_id == thread_id]:
        del state.replies[reply.id]


@handles(WorkspaceEvent.DISCUSSION_REPLY_ADDED)
def _reply_added(state: NodeState, event: NodeEvent) -> None:
    payload = event.payload
    parent_id = payload.get("parent_id")
    reply = WorkspaceReply(
        id=event.id("reply_id"),
        node_id=event.node_id,
        thread_id=event.id("thread_id"),
        parent_id=UUID(parent_id) if parent_id else None,
        depth=payload["depth"],
        body=payload["body"],
        mentions=payload.get("mentions", []),
        author_id=event.actor,
        created_at=event.at,
        changed_at=event.at,
    )
    state.replies[reply.id] = reply


@handles(WorkspaceEvent.DISCUSSION_REPLY_EDITED)
def _reply_edited(state: NodeState, event: NodeEvent) -> None:
    reply = state.replies[event.id("reply_id")]
    before = {
        "body": reply.body,
        "written_by": reply.edited_by or reply.author_id,
        # As UTC, so that a command and a rebuild store the same text: PostgreSQL returns times with the
        # offset of the session.
        "written_at": reply.changed_at.astimezone(UTC).isoformat(),
    }
    _change_reply(
        state,
        event,
        body=event.payload["body"],
        mentions=event.payload.get("mentions", []),
        edited_by=event.actor,
        history=[*reply.history, before][-_HISTORY_MAX:],
    )


@handles(WorkspaceEvent.DISCUSSION_REPLY_DELETED)
def _reply_deleted(state: NodeState, event: NodeEvent) -> None:
    """Delete a reply; if it has replies, only clear its text, until the last of them is deleted."""
    if event.payload["answered"]:
        empty: dict[str, Any] = {
            "body": "",
            "mentions": [],
            "edited_by": None,
            "history": [],
            "reactions": {},
        }
        _change_reply(state, event, **empty, deleted_at=event.at)
        return
    for reply_id in (event.payload["reply_id"], *event.payload["emptied"]):
        del state.replies[UUID(reply_id)]


@handles(WorkspaceEvent.DISCUSSION_REACTION_ADDED)
def _reaction_added(state: NodeState, event: NodeEvent) -> None:
    reply, emoji = state.replies[event.id("reply_id")], event.payload["emoji"]
    users = [*reply.reactions.get(emoji, []), event.actor]
    state.replies[reply.id] = reply.model_copy(update={"reactions": {**reply.reactions, emoji: users}})


@handles(WorkspaceEvent.DISCUSSION_REACTION_REMOVED)
def _reaction_removed(state: NodeState, event: NodeEvent) -> None:
    reply, emoji = state.replies[event.id("reply_id")], event.payload["emoji"]
    remaining = {name: users for name, users in reply.reactions.items() if name != emoji}
    if users := [one for one in reply.reactions[emoji] if one != event.actor]:
        remaining[emoji] = users
    state.replies[reply.id] = reply.model_copy(update={"reactions": remaining})


def _change_thread(state: NodeState, event: NodeEvent, **fields: Any) -> None:
    thread = state.threads[event.id("thread_id")]
    update = {**fields, "version": thread.version + 1, "changed_at": event.at}
    state.threads[thread.id] = thread.model_copy(update=update)


def _change_reply(state: NodeState, event: NodeEvent, **fields: Any) -> None:
    reply = state.replies[event.id("reply_id")]
    update = {**fields, "version": reply.version + 1, "changed_at": event.at}
    state.replies[reply.id] = reply.model_copy(update=update)
