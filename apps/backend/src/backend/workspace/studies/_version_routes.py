"""A study's versions over HTTP: keep one, look at them, and go back to one."""

import asyncio
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from relaybox.http import Principal, UnitOfWork, json_body
from shared_types.workspace import NodeKind, Role
from shared_types.workspace_version_api import (
    CreateVersion,
    RollBack,
    VersionDetail,
    VersionDiff,
    VersionNumber,
    VersionPage,
    VersionView,
)
from starlette.responses import Response

from backend.workspace.access import Access
from backend.workspace.core import IfMatch
from backend.workspace.errors import ResourceNotFound, VersionsFull, VersionTooLarge
from backend.workspace.http import (
    IfMatchHeader,
    RouteDependencies,
    cursor_int,
    decode_cursor,
    documented_errors,
    encode_cursor,
    json_response,
    parse_body,
)
from backend.workspace.studies._dependencies import (
    STUDY_CHANGE_ERRORS,
    STUDY_READ_ERRORS,
    STUDY_WRITE_ERRORS,
)
from backend.workspace.studies._versions import VERSIONS_SQL, create_version, fetch_content, roll_back

__all__ = ("add_version_routes",)

_KEPT_ERRORS = (VersionsFull, VersionTooLarge)
Number = Annotated[VersionNumber, Path()]
Against = Annotated[VersionNumber | Literal["current"], Query()]
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(max_length=200)]


def add_version_routes(router: APIRouter, deps: RouteDependencies) -> None:
    """The routes under ``/studies/{id}/versions``, and the one that goes back."""
    _add_take(router, deps)
    _add_list(router, deps)
    _add_get(router, deps)
    _add_diff(router, deps)
    _add_roll_back(router, deps)


def _add_take(router: APIRouter, deps: RouteDependencies) -> None:
    begun = Depends(deps.writing("TakeVersion", Role.EDITOR, node="study_id", kind=NodeKind.STUDY))

    @router.post(
        "/studies/{study_id}/versions",
        status_code=201,
        summary="Keep a study as it is now",
        openapi_extra=json_body(CreateVersion),
        responses={201: {"model": VersionView}, **documented_errors(*STUDY_WRITE_ERRORS, *_KEPT_ERRORS)},
    )
    async def take(
        request: Request, unit: Annotated[UnitOfWork[Principal], begun], study_id: UUID
    ) -> Response:
        body = await parse_body(request, CreateVersion)
        version = await create_version(deps.begin_command(request, unit), study_id, body)
        return json_response(201, version, location=f"{request.url.path}/{version.number}")

    _ = take


def _add_list(router: APIRouter, deps: RouteDependencies) -> None:
    looked = Depends(deps.reading(node="study_id", kind=NodeKind.STUDY))

    @router.get(
        "/studies/{study_id}/versions",
        summary="The versions of a study, newest first",
        responses=documented_errors(*STUDY_READ_ERRORS),
    )
    async def versions(
        _access: Annotated[Access, looked], study_id: UUID, limit: Limit = 50, cursor: Cursor = None
    ) -> VersionPage:
        [before] = decode_cursor(cursor, cursor_int)
        async with deps.backbone.database.connection() as connection:
            rows = await connection.fetch(VERSIONS_SQL["versions_page"], study_id, before, limit + 1)
        items = [VersionView.model_validate(dict(row)) for row in rows[:limit]]
        return VersionPage(
            items=items, next_cursor=encode_cursor(items[-1].number) if len(rows) > limit else None
        )

    _ = versions


def _add_get(router: APIRouter, deps: RouteDependencies) -> None:
    looked = Depends(deps.reading(node="study_id", kind=NodeKind.STUDY))

    @router.get(
        "/studies/{study_id}/versions/{number}",
        summary="A version with all that it holds",
        responses={200: {"model": VersionDetail}, **documented_errors(*STUDY_READ_ERRORS)},
    )
    async def get(_access: Annotated[Access, looked], study_id: UUID, number: Number) -> Response:
        async with deps.backbone.database.connection() as connection:
            rows = await connection.fetch(VERSIONS_SQL["version_detail"], study_id, number)
        if not rows:
            raise ResourceNotFound("version")
        # PostgreSQL has written the answer: a version is as large as its study, and never changes.
        return json_response(200, rows[0]["detail"].encode())

    _ = get


def _add_diff(router: APIRouter, deps: RouteDependencies) -> None:
    looked = Depends(deps.reading(node="study_id", kind=NodeKind.STUDY))

    @router.get(
        "/studies/{study_id}/versions/{number}/diff",
        summary="What changed from a version to another one, or until now",
        responses=documented_errors(*STUDY_READ_ERRORS),
    )
    async def diff(
        _access: Annotated[Access, looked], study_id: UUID, number: Number, against: Against = "current"
    ) -> VersionDiff:
        from backend.workspace.studies._diff import diff_versions

        async with deps.backbone.database.connection() as connection:
            before = await fetch_content(connection, study_id, number)
            after = await fetch_content(connection, study_id, None if against == "current" else against)
        return await asyncio.to_thread(diff_versions, before, after)

    _ = diff


def _add_roll_back(router: APIRouter, deps: RouteDependencies) -> None:
    begun = Depends(deps.writing("RollBack", Role.EDITOR, node="study_id", kind=NodeKind.STUDY))

    @router.post(
        "/studies/{study_id}/rollback",
        status_code=201,
        summary="Bring chapters and description of a version back, as a new version",
        openapi_extra=json_body(RollBack),
        responses={201: {"model": VersionView}, **documented_errors(*STUDY_CHANGE_ERRORS, *_KEPT_ERRORS)},
    )
    async def back(
        request: Request,
        unit: Annotated[UnitOfWork[Principal], begun],
        study_id: UUID,
        if_match: IfMatchHeader,
    ) -> Response:
        match, body = IfMatch.parse(if_match), await parse_body(request, RollBack)
        tx = deps.begin_command(request, unit)
        version = await roll_back(tx, study_id, body, match)
        place = request.url.path.removesuffix("rollback") + f"versions/{version.number}"
        return json_response(201, version, version=tx.node(study_id).version, location=place)

    _ = back
