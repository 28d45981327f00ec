"""Commands on discussion threads. The target of a thread is a node, a chapter or a move."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

from relaybox.db import load_queries
from shared_types.events import EventTarget
from shared_types.workspace import Role, WorkspaceEvent, WorkspaceReply, WorkspaceThread
from shared_types.workspace_discussions_api import CreateThread, UpdateThread

from backend.workspace.access import Access
from backend.workspace.core import CommandTransaction, IfMatch, lock_node
from backend.workspace.discussions._mentions import find_mentions
from backend.workspace.errors import (
    MoveNotFound,
    NotTheAuthor,
    ResourceNotFound,
    RoleMissing,
    as_resource_not_found,
)
from backend.workspace.projection import has_move
from backend.workspace.studies import fetch_chapter

__all__ = (
    "DISCUSSIONS_SQL",
    "LockedThread",
    "create_thread",
    "delete_thread",
    "lock_thread",
    "require_author_or",
    "update_thread",
)

DISCUSSIONS_SQL: Final = load_queries(__package__ or "backend.workspace.discussions", "discussions.sql")
_TEXT_FIELDS: Final = ("kind", "title", "body")


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedThread:
    """A thread that was read after its node had been locked."""

    thread: WorkspaceThread
    access: Access
    #: Number of replies that are not deleted.
    replies: int
    #: Number of rows of replies. A deleted reply keeps an empty row while it has replies.
    rows: int


async def lock_thread(tx: CommandTransaction, thread_id: UUID) -> LockedThread:
    """Lock the node of a thread, require the role commenter, and load the thread.

    Raises:
        ResourceNotFound: The thread does not exist, or the sender may not read it.
        RoleMissing: The sender is not a commenter.
    """
    rows = await tx.executor.fetch(DISCUSSIONS_SQL["thread_node"], thread_id)
    if not rows:
        raise ResourceNotFound("thread")
    node_id = rows[0]["node_id"]
    with as_resource_not_found("thread"):
        access = await lock_node(tx, node_id, Role.COMMENTER)
    rows = await tx.executor.fetch(DISCUSSIONS_SQL["thread"], thread_id)
    if not rows:
        raise ResourceNotFound("thread")
    thread = WorkspaceThread.model_validate_json(rows[0]["row"])
    tx.load_rows(node_id, "threads", {thread_id: thread})
    return LockedThread(thread=thread, access=access, replies=rows[0]["replies"], rows=rows[0]["rows"])


def require_author_or(needed: Role, access: Access, author_id: str) -> None:
    """Require that the sender is the author, or has the role *needed*.

    Raises:
        RoleMissing: The sender is not the author and has a lower role.
    """
    if access.subject != author_id and not access.may(needed):
        raise RoleMissing(needed)


async def create_thread(tx: CommandTransaction, request: CreateThread) -> WorkspaceThread:
    """Create a thread.

    Raises:
        NodeNotFound: The node does not exist, or the sender may not read it.
        RoleMissing: The sender is not a commenter of the node.
        ResourceNotFound: The node has no such chapter.
        MoveNotFound: The chapter has no such move.
    """
    node_id, thread_id = request.target, uuid4()
    await lock_node(tx, node_id, Role.COMMENTER)
    if request.chapter_id is not None:
        await _require_target(tx, node_id, request.chapter_id, request.move_path)
    command = request.model_dump(mode="json", exclude={"target"}, exclude_none=True)
    payload = {"thread_id": str(thread_id), **command, "mentions": find_mentions(request.body)}
    await _emit(tx, WorkspaceEvent.DISCUSSION_THREAD_CREATED, node_id, thread_id, payload)
    await tx.record("CreateThread", node_id, {"thread_id": str(thread_id), **command})
    return tx.state(node_id).threads[thread_id]


async def _require_target(
    tx: CommandTransaction, node_id: UUID, chapter_id: UUID, move_path: str | None
) -> None:
    chapter = await fetch_chapter(tx.executor, node_id, chapter_id)
    if move_path is not None and not has_move(chapter.moves, move_path):
        raise MoveNotFound(move_path)


async def update_thread(
    tx: CommandTransaction, thread_id: UUID, request: UpdateThread, match: IfMatch
) -> LockedThread:
    """Change the fields of a thread that *request* contains; for equal values record no event.

    Raises:
        ResourceNotFound: The thread does not exist, or the sender may not read it.
        RoleMissing: The sender is neither the author of the thread nor an editor of its node; or the request
            has ``resolved`` or ``pinned``, and the sender is not an editor.
        NotTheAuthor: The request has kind, title or body, and another user is the author of the thread.
        VersionStale: The thread does not have the version that *match* requires.
    """
    held = await lock_thread(tx, thread_id)
    thread, given = held.thread, request.model_dump(mode="json", exclude_none=True)
    require_author_or(Role.EDITOR, held.access, thread.author_id)
    if given.keys() & set(_TEXT_FIELDS) and held.access.subject != thread.author_id:
        raise NotTheAuthor
    if given.keys() - set(_TEXT_FIELDS):
        held.access.require(Role.EDITOR)
    match.check(thread.version)
    if text := {
        name: given[name] for name in _TEXT_FIELDS if name in given and given[name] != getattr(thread, name)
    }:
        if "body" in text:
            text["mentions"] = find_mentions(text["body"])
        await _emit_for_thread(tx, thread, WorkspaceEvent.DISCUSSION_THREAD_UPDATED, text)
    if given.get("resolved", thread.resolved_at is not None) != (thread.resolved_at is not None):
        resolved = WorkspaceEvent.DISCUSSION_THREAD_RESOLVED
        await _emit_for_thread(
            tx, thread, resolved if given["resolved"] else WorkspaceEvent.DISCUSSION_THREAD_REOPENED
        )
    if given.get("pinned", thread.pinned) != thread.pinned:
        pinned = WorkspaceEvent.DISCUSSION_THREAD_PINNED
        await _emit_for_thread(
            tx, thread, pinned if given["pinned"] else WorkspaceEvent.DISCUSSION_THREAD_UNPINNED
        )
    await tx.record("UpdateThread", thread.node_id, {"thread_id": str(thread_id), **given})
    return LockedThread(
        thread=tx.state(thread.node_id).threads[thread_id],
        access=held.access,
        replies=held.replies,
        rows=held.rows,
    )


async def delete_thread(tx: CommandTransaction, thread_id: UUID) -> None:
    """Delete a thread with its replies.

    Raises:
        ResourceNotFound: The thread does not exist, or the sender may not read it.
        RoleMissing: The sender is neither the author nor an editor.
    """
    held = await lock_thread(tx, thread_id)
    thread = held.thread
    require_author_or(Role.EDITOR, held.access, thread.author_id)
    rows = await tx.executor.fetch(DISCUSSIONS_SQL["replies_to_delete"], thread_id)
    replies = [WorkspaceReply.model_validate_json(row["row"]) for row in rows]
    tx.load_rows(thread.node_id, "replies", {reply.id: reply for reply in replies})
    await _emit_for_thread(tx, thread, WorkspaceEvent.DISCUSSION_THREAD_DELETED, {"replies": held.replies})
    await tx.record("DeleteThread", thread.node_id, {"thread_id": str(thread_id)})


async def _emit_for_thread(
    tx: CommandTransaction,
    thread: WorkspaceThread,
    type_: WorkspaceEvent,
    fields: Mapping[str, Any] | None = None,
) -> None:
    payload = {"thread_id": str(thread.id), **(fields or {})}
    await _emit(tx, type_, thread.node_id, thread.id, payload)


async def _emit(
    tx: CommandTransaction, type_: WorkspaceEvent, node_id: UUID, thread_id: UUID, payload: Mapping[str, Any]
) -> None:
    await tx.emit(type_, node_id, payload, target=(EventTarget.DISCUSSION, thread_id))
