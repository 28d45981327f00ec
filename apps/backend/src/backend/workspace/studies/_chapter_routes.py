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
from backend.workspace.http import (
    IfMatchHeader,
    RouteDependencies,
    documented_errors,
    json_response,
    parse_body,
)
from backend.workspace.projection import Direction
from backend.workspace.studies._chapters import (
    add_move,
    delete_move,
    fetch_chapter,
    set_annotation,
    step_variation,
)
from backend.workspace.studies._dependencies import (
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


def add_chapter_routes(router: APIRouter, deps: RouteDependencies) -> None:
    """The routes under ``/studies/{id}/chapters``."""
    _add_get(router, deps)
    _add_moves(router, deps)
    _add_steps(router, deps)
    _add_annotations(router, deps)


def _add_get(router: APIRouter, deps: RouteDependencies) -> None:
    looked = Depends(deps.reading(node="study_id", kind=NodeKind.STUDY))

    @router.get(
        _CHAPTER,
        summary="A chapter with its moves",
        responses={200: {"model": ChapterView}, **documented_errors(*STUDY_READ_ERRORS)},
    )
    async def get(_access: Annotated[Access, looked], study_id: UUID, chapter_id: Id) -> Response:
        from backend.workspace.studies._chapter_moves import chapter_view

        async with deps.backbone.database.connection() as connection:
            chapter = await fetch_chapter(connection, study_id, id_of_chapter(chapter_id))
        view = await asyncio.to_thread(chapter_view, chapter)
        return json_response(200, view, version=view.version)

    _ = get


def _writing(deps: RouteDependencies, command_type: str) -> Any:
    return Depends(deps.writing(command_type, Role.EDITOR, node="study_id", kind=NodeKind.STUDY))


def _add_moves(router: APIRouter, deps: RouteDependencies) -> None:
    adding, deleting = _writing(deps, "AddMove"), _writing(deps, "DeleteMove")

    @router.post(
        f"{_CHAPTER}/moves",
        status_code=201,
        summary="Add a move: the last variation where it stands",
        openapi_extra=json_body(AddMove),
        responses={
            201: {"model": AddedMoveView},
            **documented_errors(*STUDY_CHANGE_ERRORS, *_ADD_ERRORS, AnnotationInvalid, ChapterFull),
        },
    )
    async def add(
        request: Request,
        unit: Annotated[UnitOfWork[Principal], adding],
        study_id: UUID,
        chapter_id: Id,
        if_match: IfMatchHeader,
    ) -> Response:
        match, body = IfMatch.parse(if_match), await parse_body(request, AddMove)
        tx = deps.begin_command(request, unit)
        added = await add_move(tx, study_id, id_of_chapter(chapter_id), body, match)
        return json_response(201, added, version=added.version)

    @router.delete(
        f"{_CHAPTER}/moves/{{move_path}}",
        status_code=204,
        summary="Remove a move and all that follows it",
        responses=documented_errors(*STUDY_CHANGE_ERRORS),
    )
    async def delete(
        request: Request,
        unit: Annotated[UnitOfWork[Principal], deleting],
        study_id: UUID,
        chapter_id: Id,
        move_path: str,
        if_match: IfMatchHeader,
    ) -> Response:
        match, tx = IfMatch.parse(if_match), deps.begin_command(request, unit)
        version = await delete_move(tx, study_id, id_of_chapter(chapter_id), move_path, match)
        return Response(status_code=204, headers={"ETag": etag(version)})

    _ = add, delete


def _add_steps(router: APIRouter, deps: RouteDependencies) -> None:
    promoting, demoting = _writing(deps, "PromoteVariation"), _writing(deps, "DemoteVariation")

    async def step(
        request: Request,
        unit: UnitOfWork[Principal],
        place: tuple[UUID, str, str],
        to: Direction,
        match: IfMatch,
    ) -> Response:
        study_id, chapter_id, path = place
        tx = deps.begin_command(request, unit)
        change = await step_variation(tx, study_id, id_of_chapter(chapter_id), path, to, match)
        return json_response(200, change, version=change.version)

    @router.post(
        f"{_CHAPTER}/variations/{{move_path}}/promote",
        summary="Put a variation before the one above it; the first is the main line",
        responses={200: {"model": ChapterChange}, **documented_errors(*STUDY_CHANGE_ERRORS, VariationFirst)},
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
        return await step(request, unit, place, Direction.UP, IfMatch.parse(if_match))

    @router.post(
        f"{_CHAPTER}/variations/{{move_path}}/demote",
        summary="Put a variation behind the one below it",
        responses={200: {"model": ChapterChange}, **documented_errors(*STUDY_CHANGE_ERRORS, VariationLast)},
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
        return await step(request, unit, place, Direction.DOWN, IfMatch.parse(if_match))

    _ = promote, demote


def _add_annotations(router: APIRouter, deps: RouteDependencies) -> None:
    begun = _writing(deps, "AnnotateMove")

    @router.put(
        f"{_CHAPTER}/moves/{{move_path}}/annotation",
        summary="Say something at a move; move_path `start`: before the first one",
        openapi_extra=json_body(SetAnnotation),
        responses={
            200: {"model": AnnotatedMoveView},
            **documented_errors(*STUDY_CHANGE_ERRORS, AnnotationInvalid, ChapterFull),
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
        match, body = IfMatch.parse(if_match), await parse_body(request, SetAnnotation)
        path = "" if move_path == _START else move_path
        tx = deps.begin_command(request, unit)
        said = await set_annotation(tx, study_id, id_of_chapter(chapter_id), path, body, match)
        return json_response(200, said, version=said.version)

    _ = annotate
