"""Routes that read a chapter and change its moves. ``If-Match`` must contain the chapter's version."""

import asyncio
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Request
from relaybox.http import json_body
from shared_types.workspace_study_api import (
    AddedMoveView,
    AddMove,
    AnnotatedMoveView,
    ChapterChange,
    ChapterView,
    SetAnnotation,
)
from starlette.responses import Response

from backend.workspace.core import CommandTransaction, IfMatch, etag
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
from backend.workspace.http import Dependencies, Match, documented_errors, json_response, parse_body
from backend.workspace.projection import Direction
from backend.workspace.studies._chapters import (
    add_move,
    delete_move,
    fetch_chapter,
    move_variation,
    set_annotation,
)
from backend.workspace.studies._dependencies import (
    STUDY_CHANGE_ERRORS,
    STUDY_READ_ERRORS,
    PathId,
    StudyAccess,
    begin_study_command,
    chapter_id_from_path,
)

__all__ = ("chapter_router",)

_CHAPTER: Final = "/studies/{study_id}/chapters/{chapter_id}"
#: The move path in URLs that stands for the starting position.
_START: Final = "start"
_ADD_ERRORS: Final = (MoveExists, MoveIllegal, MoveNotFound, MovesFull, VariationsFull)
chapter_router = APIRouter()


@chapter_router.get(
    _CHAPTER,
    summary="Read a chapter with its moves",
    responses={200: {"model": ChapterView}, **documented_errors(*STUDY_READ_ERRORS)},
)
async def get(
    dependencies: Dependencies, _access: StudyAccess, study_id: UUID, chapter_id: PathId
) -> Response:
    from backend.workspace.studies._chapter_moves import chapter_view

    async with dependencies.database.connection() as connection:
        chapter = await fetch_chapter(connection, study_id, chapter_id_from_path(chapter_id))
    view = await asyncio.to_thread(chapter_view, chapter)
    return json_response(200, view, version=view.version)


@chapter_router.post(
    f"{_CHAPTER}/moves",
    status_code=201,
    summary="Add a move, as the last variation after the move `after`",
    openapi_extra=json_body(AddMove),
    responses={
        201: {"model": AddedMoveView},
        **documented_errors(*STUDY_CHANGE_ERRORS, *_ADD_ERRORS, AnnotationInvalid, ChapterFull),
    },
)
async def add(
    request: Request,
    tx: Annotated[CommandTransaction, begin_study_command("AddMove")],
    study_id: UUID,
    chapter_id: PathId,
    match: Match,
) -> Response:
    body = await parse_body(request, AddMove)
    added = await add_move(tx, study_id, chapter_id_from_path(chapter_id), body, match)
    return json_response(201, added, version=added.version)


@chapter_router.delete(
    f"{_CHAPTER}/moves/{{move_path}}",
    status_code=204,
    summary="Delete a move and all moves after it",
    responses=documented_errors(*STUDY_CHANGE_ERRORS),
)
async def delete(
    tx: Annotated[CommandTransaction, begin_study_command("DeleteMove")],
    study_id: UUID,
    chapter_id: PathId,
    move_path: str,
    match: Match,
) -> Response:
    version = await delete_move(tx, study_id, chapter_id_from_path(chapter_id), move_path, match)
    return Response(status_code=204, headers={"ETag": etag(version)})


@chapter_router.post(
    f"{_CHAPTER}/variations/{{move_path}}/promote",
    summary="Promote a variation: swap it with the variation above it",
    responses={
        200: {"model": ChapterChange},
        **documented_errors(*STUDY_CHANGE_ERRORS, VariationFirst),
    },
)
async def promote(
    tx: Annotated[CommandTransaction, begin_study_command("PromoteVariation")],
    study_id: UUID,
    chapter_id: PathId,
    move_path: str,
    match: Match,
) -> Response:
    return await _move_variation(tx, study_id, chapter_id, move_path, Direction.UP, match)


@chapter_router.post(
    f"{_CHAPTER}/variations/{{move_path}}/demote",
    summary="Demote a variation: swap it with the variation below it",
    responses={200: {"model": ChapterChange}, **documented_errors(*STUDY_CHANGE_ERRORS, VariationLast)},
)
async def demote(
    tx: Annotated[CommandTransaction, begin_study_command("DemoteVariation")],
    study_id: UUID,
    chapter_id: PathId,
    move_path: str,
    match: Match,
) -> Response:
    return await _move_variation(tx, study_id, chapter_id, move_path, Direction.DOWN, match)


async def _move_variation(
    tx: CommandTransaction, study_id: UUID, chapter_id: str, path: str, direction: Direction, match: IfMatch
) -> Response:
    change = await move_variation(tx, study_id, chapter_id_from_path(chapter_id), path, direction, match)
    return json_response(200, change, version=change.version)


@chapter_router.put(
    f"{_CHAPTER}/moves/{{move_path}}/annotation",
    summary="Set the annotation of a move; move_path `start` is the starting position",
    openapi_extra=json_body(SetAnnotation),
    responses={
        200: {"model": AnnotatedMoveView},
        **documented_errors(*STUDY_CHANGE_ERRORS, AnnotationInvalid, ChapterFull),
    },
)
async def annotate(
    request: Request,
    tx: Annotated[CommandTransaction, begin_study_command("AnnotateMove")],
    study_id: UUID,
    chapter_id: PathId,
    move_path: str,
    match: Match,
) -> Response:
    body, path = await parse_body(request, SetAnnotation), "" if move_path == _START else move_path
    annotated = await set_annotation(tx, study_id, chapter_id_from_path(chapter_id), path, body, match)
    return json_response(200, annotated, version=annotated.version)
