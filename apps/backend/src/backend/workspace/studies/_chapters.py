"""Commands on the moves of a chapter; each loads and writes the row of one chapter.

The deciders are in :mod:`backend.workspace.studies._chapter_moves`. Functions import that module when they
need it, because it needs the package ``chess``, which may not be installed.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar
from uuid import UUID

from pydantic_core import from_json, to_json
from relaybox.db import Executor, load_queries
from shared_types.events import EventTarget
from shared_types.workspace import Role, WorkspaceChapter, WorkspaceEvent
from shared_types.workspace_study_api import (
    AddedMoveView,
    AddMove,
    AnnotatedMoveView,
    ChapterChange,
    ChapterEntry,
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
    "fetch_chapter_entries",
    "fetch_chapters",
    "move_variation",
    "run_in_thread_if_large",
    "set_annotation",
)

P = ParamSpec("P")
T = TypeVar("T")

CHAPTERS_SQL: Final = load_queries(__package__ or "backend.workspace.studies", "chapters.sql")
CHAPTER_BYTES_MAX: Final = 2 * 1024 * 1024
"""Maximum size of a chapter's moves as JSON, in bytes.

A version contains up to 64 chapters in one JSONB value, which PostgreSQL limits to 256 MB.
"""
#: Chapters with more moves are processed in a thread, so that the event loop is not blocked.
_LOOP_MOVES_MAX: Final = 500


async def fetch_chapter(executor: Executor, study_id: UUID, chapter_id: UUID) -> WorkspaceChapter:
    """Return one chapter of a study.

    Raises:
        ResourceNotFound: The study has no such chapter.
    """
    rows = await executor.fetch(CHAPTERS_SQL["chapter"], study_id, chapter_id)
    if not rows:
        raise ResourceNotFound("chapter")
    return WorkspaceChapter.model_validate_json(rows[0]["row"])


async def fetch_chapters(executor: Executor, study_id: UUID) -> list[WorkspaceChapter]:
    """Return all chapters of a study, in their order."""
    rows = await executor.fetch(CHAPTERS_SQL["chapters"], study_id)
    # In a thread: a whole study is megabytes of JSON, which would block the event loop.
    return await asyncio.to_thread(lambda: [WorkspaceChapter.model_validate_json(row["row"]) for row in rows])


async def fetch_chapter_entries(executor: Executor, study_id: UUID) -> list[ChapterEntry]:
    """Return the chapters of a study, in their order, without their moves."""
    rows = await executor.fetch(CHAPTERS_SQL["chapter_entries"], study_id)
    return [ChapterEntry.model_validate({**row, "headers": from_json(row["headers"])}) for row in rows]


async def run_in_thread_if_large(
    moves: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call *function* and return its result; for a large chapter, call it in a thread.

    *moves* is the number of moves that *function* processes. With more than 500, it would block the event
    loop.
    """
    if moves <= _LOOP_MOVES_MAX:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


async def add_move(
    tx: CommandTransaction, study_id: UUID, chapter_id: UUID, request: AddMove, match: IfMatch
) -> AddedMoveView:
    """Add a move to a chapter whose version *match* allows.

    Raises:
        NodeNotFound, RoleMissing: The sender may not read the study, or is not an editor of it.
        ResourceNotFound: The study has no such chapter.
        VersionStale: The chapter does not have the version that *match* requires.
        ChessError: The move is refused; see :func:`backend.workspace.chess.add_move`.
        ChapterFull: The chapter would be too large.
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
    """Delete a move with its subtree; return the new version of the chapter.

    Raises:
        NodeNotFound, RoleMissing, VersionStale: As for :func:`add_move`.
        ResourceNotFound: The study has no such chapter, or the chapter has no move with this path.
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
    """Swap the variation that begins at *path* with the next variation in *direction*.

    Raises:
        NodeNotFound, RoleMissing, VersionStale: As for :func:`add_move`.
        ResourceNotFound: The study has no such chapter, or the chapter has no move with this path.
        VariationFirst, VariationLast: There is no variation in this direction.
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
    """Set the annotation of a move, or, with the empty *path*, of the starting position.

    If the stored annotation is equal, no event is recorded.

    Raises:
        NodeNotFound, RoleMissing, VersionStale: As for :func:`add_move`.
        ResourceNotFound: The study has no such chapter, or the chapter has no move with this path.
        AnnotationInvalid: The annotation is too long, or PGN cannot express it.
        ChapterFull: The chapter would be too large.
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
    """Call a decider; raise ResourceNotFound (404) instead of MoveNotFound, as the URL names the move."""
    try:
        return await run_in_thread_if_large(moves, function, *args, **kwargs)
    except MoveNotFound:
        raise ResourceNotFound("move") from None


async def _emit(
    tx: CommandTransaction, chapter: WorkspaceChapter, event: WorkspaceEvent, payload: dict[str, Any]
) -> WorkspaceChapter:
    """Emit an event of *chapter*; return the chapter with the change of the event."""
    await tx.emit(event, chapter.node_id, payload, target=(EventTarget.CHAPTER, chapter.id))
    return tx.state(chapter.node_id).chapters[chapter.id]


def _require_size(chapter: WorkspaceChapter) -> WorkspaceChapter:
    if len(to_json(chapter.moves)) > CHAPTER_BYTES_MAX:
        raise ChapterFull(CHAPTER_BYTES_MAX)
    return chapter


async def _record(
    tx: CommandTransaction, command: str, chapter: WorkspaceChapter, payload: dict[str, Any]
) -> None:
    await tx.record(command, chapter.node_id, {"chapter_id": str(chapter.id), **payload})
