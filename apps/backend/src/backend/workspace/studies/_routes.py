"""Studies over HTTP: make, read, change and export one; with its chapters and versions."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from relaybox.errors import Detail
from relaybox.http import Principal, UnitOfWork, ValidationFailed, json_body
from shared_types.workspace import NodeKind, Role, WorkspaceChapter
from shared_types.workspace_api import NodeView
from shared_types.workspace_study_api import CreateStudy, ExportMode, StudyDetail, UpdateStudy
from starlette.responses import Response

from backend.workspace.access import Access
from backend.workspace.core import IfMatch
from backend.workspace.errors import ClipPathMissing, MoveNotFound, TitleTaken, TreeRefused
from backend.workspace.http import (
    IfMatchHeader,
    RouteDependencies,
    documented_errors,
    json_response,
    parse_body,
)
from backend.workspace.nodes import fetch_detail, node_view
from backend.workspace.studies._chapter_routes import add_chapter_routes
from backend.workspace.studies._chapters import fetch_chapter, fetch_chapters
from backend.workspace.studies._dependencies import (
    STUDY_CHANGE_ERRORS,
    STUDY_READ_ERRORS,
    STUDY_WRITE_ERRORS,
    chess_installed,
)
from backend.workspace.studies._studies import create_study, fetch_chapter_entries, update_study
from backend.workspace.studies._version_routes import add_version_routes

__all__ = ("add_study_routes",)

_PGN: Final = "application/x-chess-pgn"


def add_study_routes(router: APIRouter, deps: RouteDependencies) -> None:
    """The routes under ``/studies`` but those of imports."""
    studies = APIRouter(dependencies=[Depends(chess_installed)])
    _add_create(studies, deps)
    _add_get(studies, deps)
    _add_update(studies, deps)
    _add_export(studies, deps)
    add_chapter_routes(studies, deps)
    add_version_routes(studies, deps)
    router.include_router(studies)


async def _parent_of(request: Request) -> UUID | None:
    return (await parse_body(request, CreateStudy)).parent_id


def _add_create(router: APIRouter, deps: RouteDependencies) -> None:
    begun = Depends(deps.writing("CreateNode", Role.EDITOR, node=_parent_of))

    @router.post(
        "/studies",
        status_code=201,
        summary="Make a study",
        openapi_extra=json_body(CreateStudy),
        responses={
            201: {"model": NodeView},
            **documented_errors(*STUDY_WRITE_ERRORS, TreeRefused, TitleTaken),
        },
    )
    async def create(request: Request, unit: Annotated[UnitOfWork[Principal], begun]) -> Response:
        tx = deps.begin_command(request, unit)
        study_id = await create_study(tx, await parse_body(request, CreateStudy))
        access = await tx.access(study_id)
        view = node_view(tx.node(study_id), access.visibility, access.parent_id)
        return json_response(201, view, version=view.version, location=f"{request.url.path}/{study_id}")

    _ = create


def _add_get(router: APIRouter, deps: RouteDependencies) -> None:
    looked = Depends(deps.reading(node="study_id", kind=NodeKind.STUDY))

    @router.get(
        "/studies/{study_id}",
        summary="A study, its place, and its chapters",
        responses={200: {"model": StudyDetail}, **documented_errors(*STUDY_READ_ERRORS)},
    )
    async def get(access: Annotated[Access, looked], study_id: UUID) -> Response:
        async with deps.backbone.database.connection() as connection:
            # In this order: should a chapter come in between, the ETag is the one from before it.
            detail = await fetch_detail(connection, access)
            chapters = await fetch_chapter_entries(connection, study_id)
        study = StudyDetail(**dict(detail), chapters=chapters)
        return json_response(200, study, version=study.version)

    _ = get


def _add_update(router: APIRouter, deps: RouteDependencies) -> None:
    begun = Depends(deps.writing("UpdateNode", Role.EDITOR, node="study_id", kind=NodeKind.STUDY))

    @router.patch(
        "/studies/{study_id}",
        summary="Change title or description",
        openapi_extra=json_body(UpdateStudy),
        responses={200: {"model": NodeView}, **documented_errors(*STUDY_CHANGE_ERRORS, TitleTaken)},
    )
    async def update(
        request: Request,
        unit: Annotated[UnitOfWork[Principal], begun],
        study_id: UUID,
        if_match: IfMatchHeader,
    ) -> Response:
        match, body = IfMatch.parse(if_match), await parse_body(request, UpdateStudy)
        tx = deps.begin_command(request, unit)
        await update_study(tx, study_id, body, match)
        access = await tx.access(study_id)
        view = node_view(tx.node(study_id), access.visibility, access.parent_id)
        return json_response(200, view, version=view.version)

    _ = update


def _add_export(router: APIRouter, deps: RouteDependencies) -> None:
    looked = Depends(deps.reading(node="study_id", kind=NodeKind.STUDY))

    @router.get(
        "/studies/{study_id}/export",
        summary="A study, one chapter, or a clip of it as PGN; without its discussions",
        response_class=Response,
        responses={
            200: {"content": {_PGN: {"schema": {"type": "string"}}}, "description": "The file, in UTF-8"},
            **documented_errors(*STUDY_READ_ERRORS, ClipPathMissing, MoveNotFound),
        },
    )
    async def export(
        access: Annotated[Access, looked],
        study_id: UUID,
        mode: ExportMode = ExportMode.FULL,
        chapter_id: UUID | None = None,
        move_path: Annotated[str | None, Query(max_length=4_000)] = None,
    ) -> Response:
        from backend.workspace.studies._export import content_disposition, export_pgn

        _check_parts(mode, chapter_id, move_path)
        chapters = await _exported(deps, study_id, chapter_id)
        file = await asyncio.to_thread(export_pgn, chapters, mode, move_path)
        names = [access.node.title] if chapter_id is None else [access.node.title, chapters[0].title]
        headers = {"Content-Disposition": content_disposition(" - ".join(names))}
        return Response(file, headers=headers, media_type=f"{_PGN}; charset=utf-8")

    _ = export


def _check_parts(mode: ExportMode, chapter_id: UUID | None, move_path: str | None) -> None:
    """Let only what belongs together pass: a clip is of one chapter, and nothing else begins at a move."""
    if mode is ExportMode.CLIP and chapter_id is None:
        raise ValidationFailed(
            [Detail(field="query.chapter_id", message="a clip is of one chapter; name it")]
        )
    if mode is not ExportMode.CLIP and move_path is not None:
        message = "only a clip begins at a move; send mode=clip, or leave it out"
        raise ValidationFailed([Detail(field="query.move_path", message=message)])


async def _exported(
    deps: RouteDependencies, study_id: UUID, chapter_id: UUID | None
) -> Sequence[WorkspaceChapter]:
    async with deps.backbone.database.connection() as connection:
        if chapter_id is None:
            return await fetch_chapters(connection, study_id)
        return [await fetch_chapter(connection, study_id, chapter_id)]
