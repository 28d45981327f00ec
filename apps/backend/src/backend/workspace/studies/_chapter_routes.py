"""Chapters over HTTP: read one, and change its moves. ``If-Match`` is the chapter's version."""

import asyncio
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from relaybox.http import Principal, UnitOfWork, json_body
from shared_types.workspace import NodeKind, Role
from shared_types.workspace_study_api import (
    AddedMoveView,
    AddMove,
    AnnotatedMoveView,
    ChapterChange,
    ChapterView,
    SetAnnotation,
)
from starlette.responses import Response

from backend.workspace.access import Access
from backend.workspace.core import IfMatch, etag
from backend.workspace.edge import Edge, IfMatchHeader, body_of, documented, json_answer
from backend.workspace.errors import (
    AnnotationInvalid,
    ChapterFull,
    MoveExists,
    MoveIllegal,
    MoveNotFound,
    MovesFull,
    VariationFirst,
    VariationLast,
    VariationsFull,
)
from backend.workspace.history import Step
from backend.workspace.studies._chapters import (
    add_move,
    delete_move,
    fetch_chapter,
    set_annotation,
    step_variation,
)
from backend.workspace.studies._edge import (
    STUDY_CHANGE_ERRORS,
    STUDY_READ_ERRORS,
    Id,
    id_of_chapter,
)

__all__ = ("add_chapter_routes",)

_CHAPTER: Final = "/studies/{study_id}/chapters/{chapter_id}"
#: What stands in a path for the position before the first move, which has none.
_START: Final = "start"
_ADD_ERRORS: Final = (MoveExists, MoveIllegal, MoveNotFound, MovesFull, VariationsFull)


def add_chapter_routes(router: APIRouter, edge: Edge) -> None:
    """The routes under ``/studies/{id}/chapters``."""
    _add_get(router, edge)
    _add_moves(router, edge)
    _add_steps(router, edge)
    _add_annotations(router, edge)


def _add_get(router: APIRouter, edge: Edge) -> None:
    looked = Depends(edge.reading(node="study_id", kind=NodeKind.STUDY))

    @router.get(
        _CHAPTER,
        summary="A chapter with its moves",
        responses={200: {"model": ChapterView}, **documented(*STUDY_READ_ERRORS)},
    )
    async def get(_access: Annotated[Access, looked], study_id: UUID, chapter_id: Id) -> Response:
        from backend.workspace.studies._chapter_moves import view_of

        async with edge.backbone.database.connection() as connection:
            chapter = await fetch_chapter(connection, study_id, id_of_chapter(chapter_id))
        view = await asyncio.to_thread(view_of, chapter)
        return json_answer(200, view, version=view.version)

    _ = get


def _writing(edge: Edge, command_type: str) -> Any:
    return Depends(edge.writing(command_type, Role.EDITOR, node="study_id", kind=NodeKind.STUDY))


def _add_moves(router: APIRouter, edge: Edge) -> None:
    adding, deleting = _writing(edge, "AddMove"), _writing(edge, "DeleteMove")

    @router.post(
        f"{_CHAPTER}/moves",
        status_code=201,
        summary="Add a move: the last variation where it stands",
        openapi_extra=json_body(AddMove),
        responses={
            201: {"model": AddedMoveView},
            **documented(*STUDY_CHANGE_ERRORS, *_ADD_ERRORS, AnnotationInvalid, ChapterFull),
        },
    )
    async def add(
        request: Request,
        unit: Annotated[UnitOfWork[Principal], adding],
        study_id: UUID,
        chapter_id: Id,
        if_match: IfMatchHeader,
    ) -> Response:
        match, body = IfMatch.parse(if_match), await body_of(request, AddMove)
        work = edge.work(request, unit)
        added = await add_move(work, study_id, id_of_chapter(chapter_id), body, match)
        return json_answer(201, added, version=added.version)

    @router.delete(
        f"{_CHAPTER}/moves/{{move_path}}",
        status_code=204,
        summary="Remove a move and all that follows it",
        responses=documented(*STUDY_CHANGE_ERRORS),
    )
    async def delete(
        request: Request,
        unit: Annotated[UnitOfWork[Principal], deleting],
        study_id: UUID,
        chapter_id: Id,
        move_path: str,
        if_match: IfMatchHeader,
    ) -> Response:
        match, work = IfMatch.parse(if_match), edge.work(request, unit)
        version = await delete_move(work, study_id, id_of_chapter(chapter_id), move_path, match)
        return Response(status_code=204, headers={"ETag": etag(version)})

    _ = add, delete


def _add_steps(router: APIRouter, edge: Edge) -> None:
    promoting, demoting = _writing(edge, "PromoteVariation"), _writing(edge, "DemoteVariation")

    async def step(
        request: Request, unit: UnitOfWork[Principal], place: tuple[UUID, str, str], to: Step, match: IfMatch
    ) -> Response:
        study_id, chapter_id, path = place
        work = edge.work(request, unit)
        change = await step_variation(work, study_id, id_of_chapter(chapter_id), path, to, match)
        return json_answer(200, change, version=change.version)

    @router.post(
        f"{_CHAPTER}/variations/{{move_path}}/promote",
        summary="Put a variation before the one above it; the first is the main line",
        responses={200: {"model": ChapterChange}, **documented(*STUDY_CHANGE_ERRORS, VariationFirst)},
    )
    async def promote(
        request: Request,
        unit: Annotated[UnitOfWork[Principal], promoting],
        study_id: UUID,
        chapter_id: Id,
        move_path: str,
        if_match: IfMatchHeader,
    ) -> Response:
        place = study_id, chapter_id, move_path
        return await step(request, unit, place, Step.UP, IfMatch.parse(if_match))

    @router.post(
        f"{_CHAPTER}/variations/{{move_path}}/demote",
        summary="Put a variation behind the one below it",
        responses={200: {"model": ChapterChange}, **documented(*STUDY_CHANGE_ERRORS, VariationLast)},
    )
    async def demote(
        request: Request,
        unit: Annotated[UnitOfWork[Principal], demoting],
        study_id: UUID,
        chapter_id: Id,
        move_path: str,
        if_match: IfMatchHeader,
    ) -> Response:
        place = study_id, chapter_id, move_path
        return await step(request, unit, place, Step.DOWN, IfMatch.parse(if_match))

    _ = promote, demote


def _add_annotations(router: APIRouter, edge: Edge) -> None:
    begun = _writing(edge, "AnnotateMove")

    @router.put(
        f"{_CHAPTER}/moves/{{move_path}}/annotation",
        summary="Say something at a move; move_path `start`: before the first one",
        openapi_extra=json_body(SetAnnotation),
        responses={
            200: {"model": AnnotatedMoveView},
            **documented(*STUDY_CHANGE_ERRORS, AnnotationInvalid, ChapterFull),
        },
    )
    async def annotate(
        request: Request,
        unit: Annotated[UnitOfWork[Principal], begun],
        study_id: UUID,
        chapter_id: Id,
        move_path: str,
        if_match: IfMatchHeader,
    ) -> Response:
        match, body = IfMatch.parse(if_match), await body_of(request, SetAnnotation)
        path = "" if move_path == _START else move_path
        work = edge.work(request, unit)
        said = await set_annotation(work, study_id, id_of_chapter(chapter_id), path, body, match)
        return json_answer(200, said, version=said.version)

    _ = annotate
