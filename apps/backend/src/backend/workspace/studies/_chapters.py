"""Chapters: reading one, and changing its moves. Only the one chapter's row is loaded and written.

What a change comes to is decided by :mod:`backend.workspace.studies._chapter_moves`. It cannot be
imported without the package ``chess``, and so is imported where it is needed.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar
from uuid import UUID

from pydantic_core import to_json
from relaybox.db import Executor, load_queries
from shared_types.events import EventTarget
from shared_types.workspace import Role, WorkspaceChapter, WorkspaceEvent
from shared_types.workspace_study_api import (
    AddedMoveView,
    AddMove,
    AnnotatedMoveView,
    ChapterChange,
    SetAnnotation,
)

from backend.workspace.core import CommandTransaction, IfMatch, lock_node
from backend.workspace.errors import ChapterFull, MoveNotFound, ResourceNotFound
from backend.workspace.projection import Direction

__all__ = (
    "CHAPTERS_SQL",
    "CHAPTER_BYTES_MAX",
    "add_move",
    "delete_move",
    "fetch_chapter",
    "fetch_chapters",
    "move_variation",
    "run_in_thread_if_large",
    "set_annotation",
)

P = ParamSpec("P")
T = TypeVar("T")

CHAPTERS_SQL: Final = load_queries(__package__ or "backend.workspace.studies", "chapters.sql")
CHAPTER_BYTES_MAX: Final = 2 * 1024 * 1024
"""JSON of a chapter's moves: 64 of them, a version, stay below PostgreSQL's limit for a value, 256 MB."""
#: A chapter with more moves is thought about in a thread, so that others are not kept waiting.
_LOOP_MOVES_MAX: Final = 500


async def fetch_chapter(executor: Executor, study_id: UUID, chapter_id: UUID) -> WorkspaceChapter:
    """One chapter of a study.

    Raises:
        ResourceNotFound: it has no such chapter.
    """
    rows = await executor.fetch(CHAPTERS_SQL["chapter"], study_id, chapter_id)
    if not rows:
        raise ResourceNotFound("chapter")
    return WorkspaceChapter.model_validate_json(rows[0]["row"])


async def fetch_chapters(executor: Executor, study_id: UUID) -> list[WorkspaceChapter]:
    """All chapters of a study, in their order."""
    rows = await executor.fetch(CHAPTERS_SQL["chapters"], study_id)
    # Aside: of a whole study they are megabytes, and others want their turn between two of them.
    return await asyncio.to_thread(lambda: [WorkspaceChapter.model_validate_json(row["row"]) for row in rows])


async def run_in_thread_if_large(
    moves: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """What *function* gives, which thinks about so many *moves*: in a thread if they are many."""
    if moves <= _LOOP_MOVES_MAX:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


async def add_move(
    tx: CommandTransaction, study_id: UUID, chapter_id: UUID, request: AddMove, match: IfMatch
) -> AddedMoveView:
    """Add a move to a chapter whose version *match* allows.

    Raises:
        NodeNotFound, RoleMissing, ResourceNotFound, VersionStale: the chapter is not to be changed so.
        ChessError: the move is refused; see :func:`backend.workspace.studies._chapter_moves.added`.
        ChapterFull: the chapter would be too large.
    """
    from backend.workspace.studies._chapter_moves import decide_add_move

    chapter = await _lock_chapter(tx, study_id, chapter_id, match)
    payload = await run_in_thread_if_large(_size(chapter), decide_add_move, chapter, request)
    changed = _require_size(await _emit(tx, chapter, WorkspaceEvent.MOVE_ADDED, payload))
    await _record(tx, "AddMove", chapter, request.model_dump(mode="json", exclude_none=True))
    return AddedMoveView(**payload, **payload["annotation"], version=changed.version)


async def delete_move(
    tx: CommandTransaction, study_id: UUID, chapter_id: UUID, path: str, match: IfMatch
) -> int:
    """Remove a move with all that follows it; the chapter's version after that.

    Raises:
        NodeNotFound, RoleMissing, ResourceNotFound, VersionStale: the chapter has no such move to remove.
    """
    from backend.workspace.studies._chapter_moves import decide_delete_move

    chapter = await _lock_chapter(tx, study_id, chapter_id, match)
    payload = await _decide_for_path(_size(chapter), decide_delete_move, chapter, path)
    changed = await _emit(tx, chapter, WorkspaceEvent.MOVE_DELETED, payload)
    await _record(tx, "DeleteMove", chapter, {"move_path": path})
    return changed.version


async def move_variation(
    tx: CommandTransaction, study_id: UUID, chapter_id: UUID, path: str, direction: Direction, match: IfMatch
) -> ChapterChange:
    """Let a variation change places with its neighbour.

    Raises:
        NodeNotFound, RoleMissing, ResourceNotFound, VersionStale: no such move.
        VariationFirst, VariationLast: there is no neighbour.
    """
    from backend.workspace.studies._chapter_moves import decide_move_variation

    chapter = await _lock_chapter(tx, study_id, chapter_id, match)
    payload = await _decide_for_path(_size(chapter), decide_move_variation, chapter, path, direction)
    up = direction is Direction.UP
    event = WorkspaceEvent.VARIATION_PROMOTED if up else WorkspaceEvent.VARIATION_DEMOTED
    changed = await _emit(tx, chapter, event, payload)
    await _record(tx, "PromoteVariation" if up else "DemoteVariation", chapter, {"move_path": path})
    return ChapterChange(chapter_id=chapter_id, version=changed.version, move_path=path)


async def set_annotation(
    tx: CommandTransaction,
    study_id: UUID,
    chapter_id: UUID,
    path: str,
    request: SetAnnotation,
    match: IfMatch,
) -> AnnotatedMoveView:
    """Say something else at a move, or before the first one (the empty *path*); the same is no change.

    Raises:
        NodeNotFound, RoleMissing, ResourceNotFound, VersionStale: the chapter has no such move to say it at.
        AnnotationInvalid: PGN cannot say it.
        ChapterFull: the chapter would be too large.
    """
    from backend.workspace.studies._chapter_moves import decide_annotate_move

    chapter = await _lock_chapter(tx, study_id, chapter_id, match)
    payload, differs = await _decide_for_path(_size(chapter), decide_annotate_move, chapter, path, request)
    if differs:
        chapter = _require_size(await _emit(tx, chapter, WorkspaceEvent.ANNOTATION_UPDATED, payload))
    asked = request.model_dump(mode="json", exclude_defaults=True)
    await _record(tx, "AnnotateMove", chapter, {"move_path": path, **asked})
    return AnnotatedMoveView(**payload, **payload["annotation"], version=chapter.version)


async def _lock_chapter(
    tx: CommandTransaction, study_id: UUID, chapter_id: UUID, match: IfMatch
) -> WorkspaceChapter:
    await lock_node(tx, study_id, Role.EDITOR)
    chapter = await fetch_chapter(tx.executor, study_id, chapter_id)
    match.check(chapter.version)
    tx.load_rows(study_id, "chapters", {chapter_id: chapter})
    return chapter


def _size(chapter: WorkspaceChapter) -> int:
    return len(chapter.moves.get("moves", ()))


async def _decide_for_path(moves: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same as :func:`aside`, for a move that the request's address names."""
    try:
        return await run_in_thread_if_large(moves, function, *args, **kwargs)
    except MoveNotFound:
        raise ResourceNotFound("move") from None


async def _emit(
    tx: CommandTransaction, chapter: WorkspaceChapter, event: WorkspaceEvent, payload: dict[str, Any]
) -> WorkspaceChapter:
    """The chapter after *event*."""
    await tx.emit(event, chapter.node_id, payload, target=(EventTarget.CHAPTER, chapter.id))
    return tx.state(chapter.node_id).chapters[chapter.id]


def _require_size(grown: WorkspaceChapter) -> WorkspaceChapter:
    if len(to_json(grown.moves)) > CHAPTER_BYTES_MAX:
        raise ChapterFull(CHAPTER_BYTES_MAX)
    return grown


async def _record(
    tx: CommandTransaction, command: str, chapter: WorkspaceChapter, payload: dict[str, Any]
) -> None:
    await tx.record(command, chapter.node_id, {"chapter_id": str(chapter.id), **payload})
