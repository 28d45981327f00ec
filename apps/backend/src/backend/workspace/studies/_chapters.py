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

from backend.workspace.core import IfMatch, Work
from backend.workspace.errors import ChapterFull, MoveNotFound, ThingNotFound
from backend.workspace.history import Step

__all__ = (
    "CHAPTERS",
    "CHAPTER_BYTES_MAX",
    "add_move",
    "aside",
    "delete_move",
    "fetch_chapter",
    "fetch_chapters",
    "set_annotation",
    "step_variation",
)

P = ParamSpec("P")
T = TypeVar("T")

CHAPTERS: Final = load_queries(__package__ or "backend.workspace.studies", "chapters.sql")
CHAPTER_BYTES_MAX: Final = 2 * 1024 * 1024
"""JSON of a chapter's moves: 64 of them, a version, stay below PostgreSQL's limit for a value, 256 MB."""
#: A chapter with more moves is thought about in a thread, so that others are not kept waiting.
_LOOP_MOVES_MAX: Final = 500


async def fetch_chapter(executor: Executor, study_id: UUID, chapter_id: UUID) -> WorkspaceChapter:
    """One chapter of a study.

    Raises:
        ThingNotFound: it has no such chapter.
    """
    rows = await executor.fetch(CHAPTERS["chapter"], study_id, chapter_id)
    if not rows:
        raise ThingNotFound("chapter")
    return WorkspaceChapter.model_validate_json(rows[0]["row"])


async def fetch_chapters(executor: Executor, study_id: UUID) -> list[WorkspaceChapter]:
    """All chapters of a study, in their order."""
    rows = await executor.fetch(CHAPTERS["chapters"], study_id)
    # Aside: of a whole study they are megabytes, and others want their turn between two of them.
    return await asyncio.to_thread(lambda: [WorkspaceChapter.model_validate_json(row["row"]) for row in rows])


async def aside(moves: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What *function* gives, which thinks about so many *moves*: in a thread if they are many."""
    if moves <= _LOOP_MOVES_MAX:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


async def add_move(
    work: Work, study_id: UUID, chapter_id: UUID, request: AddMove, match: IfMatch
) -> AddedMoveView:
    """Add a move to a chapter whose version *match* allows.

    Raises:
        NodeNotFound, RoleMissing, ThingNotFound, VersionStale: the chapter is not to be changed so.
        ChessError: the move is refused; see :func:`backend.workspace.studies._chapter_moves.added`.
        ChapterFull: the chapter would be too large.
    """
    from backend.workspace.studies._chapter_moves import added

    chapter = await _hold(work, study_id, chapter_id, match)
    payload = await aside(_size(chapter), added, chapter, request)
    changed = _checked(await _say(work, chapter, WorkspaceEvent.MOVE_ADDED, payload))
    await _record(work, "AddMove", chapter, request.model_dump(mode="json", exclude_none=True))
    return AddedMoveView(**payload, **payload["annotation"], version=changed.version)


async def delete_move(work: Work, study_id: UUID, chapter_id: UUID, path: str, match: IfMatch) -> int:
    """Remove a move with all that follows it; the chapter's version after that.

    Raises:
        NodeNotFound, RoleMissing, ThingNotFound, VersionStale: the chapter has no such move to remove.
    """
    from backend.workspace.studies._chapter_moves import deleted

    chapter = await _hold(work, study_id, chapter_id, match)
    payload = await _of_move(_size(chapter), deleted, chapter, path)
    changed = await _say(work, chapter, WorkspaceEvent.MOVE_DELETED, payload)
    await _record(work, "DeleteMove", chapter, {"move_path": path})
    return changed.version


async def step_variation(
    work: Work, study_id: UUID, chapter_id: UUID, path: str, step: Step, match: IfMatch
) -> ChapterChange:
    """Let a variation change places with its neighbour.

    Raises:
        NodeNotFound, RoleMissing, ThingNotFound, VersionStale: the chapter has no such move to put elsewhere.
        VariationFirst, VariationLast: there is no neighbour.
    """
    from backend.workspace.studies._chapter_moves import stepped

    chapter = await _hold(work, study_id, chapter_id, match)
    payload = await _of_move(_size(chapter), stepped, chapter, path, step)
    up = step is Step.UP
    event = WorkspaceEvent.VARIATION_PROMOTED if up else WorkspaceEvent.VARIATION_DEMOTED
    changed = await _say(work, chapter, event, payload)
    await _record(work, "PromoteVariation" if up else "DemoteVariation", chapter, {"move_path": path})
    return ChapterChange(chapter_id=chapter_id, version=changed.version, move_path=path)


async def set_annotation(
    work: Work, study_id: UUID, chapter_id: UUID, path: str, request: SetAnnotation, match: IfMatch
) -> AnnotatedMoveView:
    """Say something else at a move, or before the first one (the empty *path*); the same is no change.

    Raises:
        NodeNotFound, RoleMissing, ThingNotFound, VersionStale: the chapter has no such move to say it at.
        AnnotationInvalid: PGN cannot say it.
        ChapterFull: the chapter would be too large.
    """
    from backend.workspace.studies._chapter_moves import annotated

    chapter = await _hold(work, study_id, chapter_id, match)
    payload, differs = await _of_move(_size(chapter), annotated, chapter, path, request)
    if differs:
        chapter = _checked(await _say(work, chapter, WorkspaceEvent.ANNOTATION_UPDATED, payload))
    asked = request.model_dump(mode="json", exclude_defaults=True)
    await _record(work, "AnnotateMove", chapter, {"move_path": path, **asked})
    return AnnotatedMoveView(**payload, **payload["annotation"], version=chapter.version)


async def _hold(work: Work, study_id: UUID, chapter_id: UUID, match: IfMatch) -> WorkspaceChapter:
    await work.hold(study_id, Role.EDITOR)
    chapter = await fetch_chapter(work.executor, study_id, chapter_id)
    match.check(chapter.version)
    work.holds(study_id, "chapters", {chapter_id: chapter})
    return chapter


def _size(chapter: WorkspaceChapter) -> int:
    return len(chapter.moves.get("moves", ()))


async def _of_move(moves: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same as :func:`aside`, for a move that the request's address names."""
    try:
        return await aside(moves, function, *args, **kwargs)
    except MoveNotFound:
        raise ThingNotFound("move") from None


async def _say(
    work: Work, chapter: WorkspaceChapter, event: WorkspaceEvent, payload: dict[str, Any]
) -> WorkspaceChapter:
    """The chapter after *event*."""
    await work.say(event, chapter.node_id, payload, target=(EventTarget.CHAPTER, chapter.id))
    return work.state(chapter.node_id).chapters[chapter.id]


def _checked(grown: WorkspaceChapter) -> WorkspaceChapter:
    if len(to_json(grown.moves)) > CHAPTER_BYTES_MAX:
        raise ChapterFull(CHAPTER_BYTES_MAX)
    return grown


async def _record(work: Work, command: str, chapter: WorkspaceChapter, payload: dict[str, Any]) -> None:
    await work.record(command, chapter.node_id, {"chapter_id": str(chapter.id), **payload})
