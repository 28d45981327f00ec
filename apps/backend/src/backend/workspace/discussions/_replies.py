"""Commands on replies to threads, and on reactions to replies."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID, uuid4

from shared_types.events import EventTarget
from shared_types.workspace import Role, WorkspaceEvent, WorkspaceReply
from shared_types.workspace_discussions_api import CreateReply, UpdateReply

from backend.workspace.access import Access
from backend.workspace.core import CommandTransaction, IfMatch, lock_node
from backend.workspace.discussions._discussions import DISCUSSIONS_SQL, lock_thread, require_author_or
from backend.workspace.discussions._mentions import find_mentions
from backend.workspace.errors import (
    DiscussionFull,
    ReactionsFull,
    ReplyTooDeep,
    ResourceNotFound,
    as_resource_not_found,
)

__all__ = ("REPLIES_MAX", "add_reaction", "add_reply", "delete_reply", "edit_reply", "remove_reaction")

DEPTH_MAX: Final = 5
REPLIES_MAX: Final = 500
"""Maximum number of rows of replies in one thread, including deleted replies that have replies.

A thread is always read as a whole.
"""
_EMOJI_MAX: Final = 50
_REACTIONS_MAX: Final = 1_000


async def add_reply(tx: CommandTransaction, thread_id: UUID, request: CreateReply) -> WorkspaceReply:
    """Add a reply to a thread, or to one of its replies.

    Raises:
        ResourceNotFound: The thread or the parent reply does not exist, or the sender may not read it.
        RoleMissing: The sender is not a commenter.
        ReplyTooDeep, DiscussionFull: A limit of the thread is reached.
    """
    held = await lock_thread(tx, thread_id)
    depth = 1
    if request.parent_id is not None:
        parent, _ = await _fetch(tx, request.parent_id)
        if parent is None or parent.thread_id != thread_id:
            raise ResourceNotFound("reply")
        depth = parent.depth + 1
    if depth > DEPTH_MAX:
        raise ReplyTooDeep(DEPTH_MAX)
    if held.rows >= REPLIES_MAX:
        raise DiscussionFull(REPLIES_MAX)
    reply_id, command = uuid4(), request.model_dump(mode="json", exclude_none=True)
    names = {"reply_id": str(reply_id), "thread_id": str(thread_id)}
    payload = {**names, **command, "depth": depth, "mentions": find_mentions(request.body)}
    node_id, target = held.thread.node_id, (EventTarget.DISCUSSION, reply_id)
    await tx.emit(WorkspaceEvent.DISCUSSION_REPLY_ADDED, node_id, payload, target=target)
    await tx.record("AddReply", node_id, {**names, **command})
    return tx.state(node_id).replies[reply_id]


async def edit_reply(
    tx: CommandTransaction, reply_id: UUID, request: UpdateReply, match: IfMatch
) -> WorkspaceReply:
    """Change the body of a reply; add the former body to the reply's history.

    Raises:
        ResourceNotFound: The reply does not exist, or the sender may not read it.
        RoleMissing: The sender is neither the author nor an admin.
        VersionStale: The reply does not have the version that *match* requires.
    """
    access, reply, _ = await _lock(tx, reply_id)
    require_author_or(Role.ADMIN, access, reply.author_id)
    match.check(reply.version)
    if request.body != reply.body:
        words = {"body": request.body, "mentions": find_mentions(request.body)}
        await _emit(tx, reply, WorkspaceEvent.DISCUSSION_REPLY_EDITED, words)
    await tx.record("EditReply", reply.node_id, _names(reply) | {"body": request.body})
    return tx.state(reply.node_id).replies[reply_id]


async def delete_reply(tx: CommandTransaction, reply_id: UUID) -> None:
    """Delete a reply; if it has replies, keep an empty row until the last of them is deleted.

    Raises:
        ResourceNotFound: The reply does not exist, or the sender may not read it.
        RoleMissing: The sender is neither the author nor an admin.
    """
    access, reply, answered = await _lock(tx, reply_id)
    require_author_or(Role.ADMIN, access, reply.author_id)
    emptied: list[WorkspaceReply] = []
    if not answered:
        rows = await tx.executor.fetch(DISCUSSIONS_SQL["find_emptied_parents"], reply_id)
        emptied = [WorkspaceReply.model_validate_json(row["row"]) for row in rows]
        tx.load_rows(reply.node_id, "replies", {one.id: one for one in emptied})
    payload = {"answered": answered, "emptied": [str(one.id) for one in emptied]}
    await _emit(tx, reply, WorkspaceEvent.DISCUSSION_REPLY_DELETED, payload)
    await tx.record("DeleteReply", reply.node_id, _names(reply))


async def add_reaction(tx: CommandTransaction, reply_id: UUID, emoji: str) -> None:
    """Add a reaction of the sender to a reply; for a second reaction with the same emoji record no event.

    Raises:
        ResourceNotFound: The reply does not exist, or the sender may not read it.
        RoleMissing: The sender is not a commenter.
        ReactionsFull: The reply has the maximum number of different emoji or of reactions.
    """
    _, reply, _ = await _lock(tx, reply_id)
    users = reply.reactions.get(emoji, [])
    if tx.caller.actor in users:
        return
    emoji_count, reactions = len(reply.reactions | {emoji: users}), sum(map(len, reply.reactions.values()))
    if emoji_count > _EMOJI_MAX or reactions >= _REACTIONS_MAX:
        raise ReactionsFull(_EMOJI_MAX, _REACTIONS_MAX)
    await _emit(tx, reply, WorkspaceEvent.DISCUSSION_REACTION_ADDED, {"emoji": emoji})
    await tx.record("AddReaction", reply.node_id, _names(reply) | {"emoji": emoji})


async def remove_reaction(tx: CommandTransaction, reply_id: UUID, emoji: str) -> None:
    """Remove a reaction of the sender; if there is none, record no event.

    Raises:
        ResourceNotFound: The reply does not exist, or the sender may not read it.
        RoleMissing: The sender is not a commenter.
    """
    _, reply, _ = await _lock(tx, reply_id)
    if tx.caller.actor not in reply.reactions.get(emoji, []):
        return
    await _emit(tx, reply, WorkspaceEvent.DISCUSSION_REACTION_REMOVED, {"emoji": emoji})
    await tx.record("RemoveReaction", reply.node_id, _names(reply) | {"emoji": emoji})


async def _lock(tx: CommandTransaction, reply_id: UUID) -> tuple[Access, WorkspaceReply, bool]:
    """Lock the node of a reply, require the role commenter, and load the reply.

    Returns:
        The sender's access to the node, the reply, and whether the reply has replies.
    """
    rows = await tx.executor.fetch(DISCUSSIONS_SQL["reply_node"], reply_id)
    if not rows:
        raise ResourceNotFound("reply")
    node_id = rows[0]["node_id"]
    with as_resource_not_found("reply"):
        access = await lock_node(tx, node_id, Role.COMMENTER)
    reply, answered = await _fetch(tx, reply_id)
    if reply is None:
        raise ResourceNotFound("reply")
    tx.load_rows(node_id, "replies", {reply_id: reply})
    return access, reply, answered


async def _fetch(tx: CommandTransaction, reply_id: UUID) -> tuple[WorkspaceReply | None, bool]:
    rows = await tx.executor.fetch(DISCUSSIONS_SQL["reply"], reply_id)
    if not rows:
        return None, False
    return WorkspaceReply.model_validate_json(rows[0]["row"]), rows[0]["answered"]


def _names(reply: WorkspaceReply) -> dict[str, str]:
    return {"reply_id": str(reply.id), "thread_id": str(reply.thread_id)}


async def _emit(
    tx: CommandTransaction, reply: WorkspaceReply, type_: WorkspaceEvent, fields: Mapping[str, Any]
) -> None:
    target = (EventTarget.DISCUSSION, reply.id)
    await tx.emit(type_, reply.node_id, {**_names(reply), **fields}, target=target)
