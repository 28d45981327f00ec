"""Routes of a study's versions: create, list, read, compare, roll back."""

import asyncio
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from relaybox.http import json_body
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

from backend.workspace.core import CommandTransaction
from backend.workspace.errors import ResourceNotFound, VersionsFull, VersionTooLarge
from backend.workspace.http import (
    Cursor,
    Dependencies,
    Match,
    PageLimit,
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
    StudyAccess,
    begin_study_command,
)
from backend.workspace.studies._versions import VERSIONS_SQL, create_version, fetch_content, roll_back

__all__ = ("version_router",)

_LIMIT_ERRORS = (VersionsFull, VersionTooLarge)
Number = Annotated[VersionNumber, Path()]
Against = Annotated[VersionNumber | Literal["current"], Query()]
version_router = APIRouter()


@version_router.post(
    "/studies/{study_id}/versions",
    status_code=201,
    summary="Create a version of a study as it is now",
    openapi_extra=json_body(CreateVersion),
    responses={201: {"model": VersionView}, **documented_errors(*STUDY_WRITE_ERRORS, *_LIMIT_ERRORS)},
)
async def take(
    request: Request, tx: Annotated[CommandTransaction, begin_study_command("TakeVersion")], study_id: UUID
) -> Response:
    version = await create_version(tx, study_id, await parse_body(request, CreateVersion))
    return json_response(201, version, location=f"{request.url.path}/{version.number}")


@version_router.get(
    "/studies/{study_id}/versions",
    summary="List the versions of a study, newest first",
    responses=documented_errors(*STUDY_READ_ERRORS),
)
async def versions(
    dependencies: Dependencies,
    _access: StudyAccess,
    study_id: UUID,
    limit: PageLimit = 50,
    cursor: Cursor = None,
) -> VersionPage:
    [before] = decode_cursor(cursor, cursor_int)
    async with dependencies.database.connection() as connection:
        rows = await connection.fetch(VERSIONS_SQL["versions_page"], study_id, before, limit + 1)
    items = [VersionView.model_validate(dict(row)) for row in rows[:limit]]
    next_cursor = encode_cursor(items[-1].number) if len(rows) > limit else None
    return VersionPage(items=items, next_cursor=next_cursor)


@version_router.get(
    "/studies/{study_id}/versions/{number}",
    summary="Read a version with its chapters",
    responses={200: {"model": VersionDetail}, **documented_errors(*STUDY_READ_ERRORS)},
)
async def get(dependencies: Dependencies, _access: StudyAccess, study_id: UUID, number: Number) -> Response:
    async with dependencies.database.connection() as connection:
        rows = await connection.fetch(VERSIONS_SQL["version_detail"], study_id, number)
    if not rows:
        raise ResourceNotFound("version")
    # PostgreSQL has created the JSON text, which may be large; it is not parsed here.
    return json_response(200, rows[0]["detail"].encode())


@version_router.get(
    "/studies/{study_id}/versions/{number}/diff",
    summary="Compare a version with another version or the current study",
    responses=documented_errors(*STUDY_READ_ERRORS),
)
async def diff(
    dependencies: Dependencies,
    _access: StudyAccess,
    study_id: UUID,
    number: Number,
    against: Against = "current",
) -> VersionDiff:
    from backend.workspace.studies._diff import diff_versions

    async with dependencies.database.connection() as connection:
        before = await fetch_content(connection, study_id, number)
        after = await fetch_content(connection, study_id, None if against == "current" else against)
    return await asyncio.to_thread(diff_versions, before, after)


@version_router.post(
    "/studies/{study_id}/rollback",
    status_code=201,
    summary="Restore chapters and description of a version, as a new version",
    openapi_extra=json_body(RollBack),
    responses={201: {"model": VersionView}, **documented_errors(*STUDY_CHANGE_ERRORS, *_LIMIT_ERRORS)},
)
async def back(
    request: Request,
    tx: Annotated[CommandTransaction, begin_study_command("RollBack")],
    study_id: UUID,
    match: Match,
) -> Response:
    version = await roll_back(tx, study_id, await parse_body(request, RollBack), match)
    location = request.url.path.removesuffix("rollback") + f"versions/{version.number}"
    return json_response(201, version, version=tx.node(study_id).version, location=location)
