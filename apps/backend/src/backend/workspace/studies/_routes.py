"""Routes of studies: create, read, change, export; the router includes those of chapters and versions."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from relaybox.errors import Detail
from relaybox.http import ValidationFailed, json_body
from shared_types.workspace import NodeKind, Role, WorkspaceChapter
from shared_types.workspace_api import CreateNode, NodeView, UpdateNode
from shared_types.workspace_study_api import CreateStudy, ExportMode, StudyDetail, UpdateStudy
from starlette.responses import Response

from backend.workspace.core import CommandTransaction
from backend.workspace.errors import ClipPathMissing, MoveNotFound, TitleTaken, TreeRefused
from backend.workspace.http import (
    Dependencies,
    Match,
    RouteDependencies,
    begin_command,
    documented_errors,
    json_response,
    parse_body,
)
from backend.workspace.nodes import create_node, fetch_detail, update_node, view_node
from backend.workspace.studies._chapter_routes import chapter_router
from backend.workspace.studies._chapters import fetch_chapter, fetch_chapter_entries, fetch_chapters
from backend.workspace.studies._dependencies import (
    STUDY_CHANGE_ERRORS,
    STUDY_READ_ERRORS,
    STUDY_WRITE_ERRORS,
    StudyAccess,
    begin_study_command,
    require_chess_installed,
)
from backend.workspace.studies._version_routes import version_router

__all__ = ("study_router",)

_PGN: Final = "application/x-chess-pgn"
study_router = APIRouter(dependencies=[Depends(require_chess_installed)])


async def _parent_id(request: Request) -> UUID | None:
    return (await parse_body(request, CreateStudy)).parent_id


@study_router.post(
    "/studies",
    status_code=201,
    summary="Create a study",
    openapi_extra=json_body(CreateStudy),
    responses={
        201: {"model": NodeView},
        **documented_errors(*STUDY_WRITE_ERRORS, TreeRefused, TitleTaken),
    },
)
async def create(
    request: Request,
    tx: Annotated[CommandTransaction, Depends(begin_command("CreateNode", Role.EDITOR, node=_parent_id))],
) -> Response:
    body = await parse_body(request, CreateStudy)
    study_id = await create_node(tx, CreateNode(kind=NodeKind.STUDY, **dict(body)))
    view = await view_node(tx, study_id)
    return json_response(201, view, version=view.version, location=f"{request.url.path}/{study_id}")


@study_router.get(
    "/studies/{study_id}",
    summary="Read a study, its path and its chapters",
    responses={200: {"model": StudyDetail}, **documented_errors(*STUDY_READ_ERRORS)},
)
async def get(dependencies: Dependencies, access: StudyAccess, study_id: UUID) -> Response:
    async with dependencies.database.connection() as connection:
        # Read the version first: if a chapter is added between the queries, the ETag is too old, and a write
        # with this ETag is refused. A too new ETag would allow the client to overwrite an unseen change.
        detail = await fetch_detail(connection, access)
        chapters = await fetch_chapter_entries(connection, study_id)
    study = StudyDetail(**dict(detail), chapters=chapters)
    return json_response(200, study, version=study.version)


@study_router.patch(
    "/studies/{study_id}",
    summary="Change title or description of a study",
    openapi_extra=json_body(UpdateStudy),
    responses={200: {"model": NodeView}, **documented_errors(*STUDY_CHANGE_ERRORS, TitleTaken)},
)
async def update(
    request: Request,
    tx: Annotated[CommandTransaction, begin_study_command("UpdateNode")],
    study_id: UUID,
    match: Match,
) -> Response:
    body = await parse_body(request, UpdateStudy)
    await update_node(tx, study_id, UpdateNode(**body.model_dump(exclude_unset=True)), match)
    view = await view_node(tx, study_id)
    return json_response(200, view, version=view.version)


@study_router.get(
    "/studies/{study_id}/export",
    summary="Export a study, a chapter, or a part of a chapter as PGN",
    response_class=Response,
    responses={
        200: {"content": {_PGN: {"schema": {"type": "string"}}}, "description": "The file, in UTF-8"},
        **documented_errors(*STUDY_READ_ERRORS, ClipPathMissing, MoveNotFound),
    },
)
async def export(
    dependencies: Dependencies,
    access: StudyAccess,
    study_id: UUID,
    mode: ExportMode = ExportMode.FULL,
    chapter_id: UUID | None = None,
    move_path: Annotated[str | None, Query(max_length=4_000)] = None,
) -> Response:
    from backend.workspace.studies._export import content_disposition, export_pgn

    _check_parameters(mode, chapter_id, move_path)
    chapters = await _exported_chapters(dependencies, study_id, chapter_id)
    file = await asyncio.to_thread(export_pgn, chapters, mode, move_path)
    names = [access.node.title] if chapter_id is None else [access.node.title, chapters[0].title]
    headers = {"Content-Disposition": content_disposition(" - ".join(names))}
    return Response(file, headers=headers, media_type=f"{_PGN}; charset=utf-8")


# Included last, so that the OpenAPI document lists the routes of studies first.
study_router.include_router(chapter_router)
study_router.include_router(version_router)


def _check_parameters(mode: ExportMode, chapter_id: UUID | None, move_path: str | None) -> None:
    """Require *chapter_id* for a clip, and refuse *move_path* for other modes.

    Raises:
        ValidationFailed: A parameter is missing or not allowed.
    """
    if mode is ExportMode.CLIP and chapter_id is None:
        message = "mode=clip exports a part of one chapter; send chapter_id"
        raise ValidationFailed([Detail(field="query.chapter_id", message=message)])
    if mode is not ExportMode.CLIP and move_path is not None:
        message = "only mode=clip begins at a move; send mode=clip, or omit move_path"
        raise ValidationFailed([Detail(field="query.move_path", message=message)])


async def _exported_chapters(
    dependencies: RouteDependencies, study_id: UUID, chapter_id: UUID | None
) -> Sequence[WorkspaceChapter]:
    async with dependencies.database.connection() as connection:
        if chapter_id is None:
            return await fetch_chapters(connection, study_id)
        return [await fetch_chapter(connection, study_id, chapter_id)]
