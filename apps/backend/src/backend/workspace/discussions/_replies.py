"""Replies in discussions, and reactions to them (workspace.md)."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID, uuid4

from shared_types.events import EventTarget
from shared_types.workspace import Role, WorkspaceEvent, WorkspaceReply
from shared_types.workspace_discussions_api import CreateReply, UpdateReply

from backend.workspace.access import Access
from backend.workspace.core import IfMatch, Work
from backend.workspace.discussions._discussions import DISCUSSIONS, hold_thread, require_author_or
from backend.workspace.discussions._mentions import mentions_in
from backend.workspace.errors import DiscussionFull, ReactionsFull, ReplyTooDeep, ThingNotFound, missing

__all__ = ("REPLIES_MAX", "add_reaction", "add_reply", "delete_reply", "edit_reply", "remove_reaction")

DEPTH_MAX: Final = 5
REPLIES_MAX: Final = 500
"""Of one thread, which is read whole; the places of deleted ones count."""
_EMOJI_MAX: Final = 50
_REACTIONS_MAX: Final = 1_000


async def add_reply(work: Work, thread_id: UUID, request: CreateReply) -> WorkspaceReply:
    """Answer a thread, or one of its replies.

    Raises:
        ThingNotFound: there is no such thread, or it is not for who asks; or the reply that is answered is
            not there, or deleted.
        RoleMissing: who asks may only read.
        ReplyTooDeep, DiscussionFull: there is no room for it.
    """
    held = await hold_thread(work, thread_id)
    depth = 1
    if request.parent_id is not None:
        parent, _ = await _fetch(work, request.parent_id)
        if parent is None or parent.thread_id != thread_id:
            raise ThingNotFound("reply")
        depth = parent.depth + 1
    if depth > DEPTH_MAX:
        raise ReplyTooDeep(DEPTH_MAX)
    if held.places >= REPLIES_MAX:
        raise DiscussionFull(REPLIES_MAX)
    reply_id, command = uuid4(), request.model_dump(mode="json", exclude_none=True)
    names = {"reply_id": str(reply_id), "thread_id": str(thread_id)}
    payload = {**names, **command, "depth": depth, "mentions": mentions_in(request.body)}
    node_id, target = held.thread.node_id, (EventTarget.DISCUSSION, reply_id)
    await work.say(WorkspaceEvent.DISCUSSION_REPLY_ADDED, node_id, payload, target=target)
    await work.record("AddReply", node_id, {**names, **command})
    return work.state(node_id).replies[reply_id]


async def edit_reply(work: Work, reply_id: UUID, request: UpdateReply, match: IfMatch) -> WorkspaceReply:
    """Give a reply another body; the one before stays in its history.

    Raises:
        ThingNotFound: there is no such reply, or it is not for who asks.
        RoleMissing: who asks is neither its author nor an admin.
        VersionStale: it has changed since.
    """
    access, reply, _ = await _hold(work, reply_id)
    require_author_or(Role.ADMIN, access, reply.author_id)
    match.check(reply.version)
    if request.body != reply.body:
        words = {"body": request.body, "mentions": mentions_in(request.body)}
        await _say(work, reply, WorkspaceEvent.DISCUSSION_REPLY_EDITED, words)
    await work.record("EditReply", reply.node_id, _names(reply) | {"body": request.body})
    return work.state(reply.node_id).replies[reply_id]


async def delete_reply(work: Work, reply_id: UUID) -> None:
    """Delete a reply; where it was answered its place stays, until the last answer is deleted.

    Raises:
        ThingNotFound: there is no such reply, or it is not for who asks.
        RoleMissing: who asks is neither its author nor an admin.
    """
    access, reply, answered = await _hold(work, reply_id)
    require_author_or(Role.ADMIN, access, reply.author_id)
    emptied: list[WorkspaceReply] = []
    if not answered:
        rows = await work.executor.fetch(DISCUSSIONS["emptied"], reply_id)
        emptied = [WorkspaceReply.model_validate_json(row["row"]) for row in rows]
        work.holds(reply.node_id, "replies", {one.id: one for one in emptied})
    payload = {"answered": answered, "emptied": [str(one.id) for one in emptied]}
    await _say(work, reply, WorkspaceEvent.DISCUSSION_REPLY_DELETED, payload)
    await work.record("DeleteReply", reply.node_id, _names(reply))


async def add_reaction(work: Work, reply_id: UUID, emoji: str) -> None:
    """React to a reply with an emoji; a second time is no second reaction.

    Raises:
        ThingNotFound: there is no such reply, or it is not for who asks.
        RoleMissing: who asks may only read.
        ReactionsFull: it has as many as it may have.
    """
    _, reply, _ = await _hold(work, reply_id)
    people = reply.reactions.get(emoji, [])
    if work.caller.actor in people:
        return
    emoji_count, reactions = len(reply.reactions | {emoji: people}), sum(map(len, reply.reactions.values()))
    if emoji_count > _EMOJI_MAX or reactions >= _REACTIONS_MAX:
        raise ReactionsFull(_EMOJI_MAX, _REACTIONS_MAX)
    await _say(work, reply, WorkspaceEvent.DISCUSSION_REACTION_ADDED, {"emoji": emoji})
    await work.record("AddReaction", reply.node_id, _names(reply) | {"emoji": emoji})


async def remove_reaction(work: Work, reply_id: UUID, emoji: str) -> None:
    """Take one's reaction back; one that is not there is gone already.

    Raises:
        ThingNotFound: there is no such reply, or it is not for who asks.
        RoleMissing: who asks may only read.
    """
    _, reply, _ = await _hold(work, reply_id)
    if work.caller.actor not in reply.reactions.get(emoji, []):
        return
    await _say(work, reply, WorkspaceEvent.DISCUSSION_REACTION_REMOVED, {"emoji": emoji})
    await work.record("RemoveReaction", reply.node_id, _names(reply) | {"emoji": emoji})


async def _hold(work: Work, reply_id: UUID) -> tuple[Access, WorkspaceReply, bool]:
    """A reply whose node is locked, for commenters; and whether it was answered."""
    rows = await work.executor.fetch(DISCUSSIONS["reply_node"], reply_id)
    if not rows:
        raise ThingNotFound("reply")
    node_id = rows[0]["node_id"]
    with missing("reply"):
        access = await work.hold(node_id, Role.COMMENTER)
    reply, answered = await _fetch(work, reply_id)
    if reply is None:
        raise ThingNotFound("reply")
    work.holds(node_id, "replies", {reply_id: reply})
    return access, reply, answered


async def _fetch(work: Work, reply_id: UUID) -> tuple[WorkspaceReply | None, bool]:
    rows = await work.executor.fetch(DISCUSSIONS["reply"], reply_id)
    if not rows:
        return None, False
    return WorkspaceReply.model_validate_json(rows[0]["row"]), rows[0]["answered"]


def _names(reply: WorkspaceReply) -> dict[str, str]:
    return {"reply_id": str(reply.id), "thread_id": str(reply.thread_id)}


async def _say(work: Work, reply: WorkspaceReply, type_: WorkspaceEvent, fields: Mapping[str, Any]) -> None:
    target = (EventTarget.DISCUSSION, reply.id)
    await work.say(type_, reply.node_id, {**_names(reply), **fields}, target=target)
