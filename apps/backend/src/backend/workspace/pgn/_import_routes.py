"""Imports over HTTP: a PGN file becomes chapters of a study, or studies of a folder."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Query, Request
from relaybox.http import Principal, UnitOfWork, ValidationFailed
from relaybox.outbox import OutboxSettings
from relaybox.settings import load_settings
from shared_types.workspace import NodeKind, Role
from shared_types.workspace_api import Title
from shared_types.workspace_pgn_api import ImportIntoStudy, ImportPgn, ImportReport
from starlette.responses import Response

from backend.workspace.core import CommandTransaction, lock_parent
from backend.workspace.errors import (
    ChessNotInstalled,
    FormMalformed,
    PgnRefused,
    StudyFull,
    TitleTaken,
    TooManyImports,
    TooManyUploads,
    TreeRefused,
)
from backend.workspace.http import WRITE_ERRORS, RouteDependencies, documented_errors, json_response, path_id
from backend.workspace.pgn._body import Upload, pgn_body, read_upload
from backend.workspace.pgn._file_reader import LargeFile, PgnFileReader
from backend.workspace.pgn._imports import COMMAND, import_into_study, import_new
from backend.workspace.pgn._parsed_file import FileDigest, ParsedFile
from backend.workspace.pgn._task_routes import TASK_STARTED, task_started
from backend.workspace.pgn._tasks import IMPORT_TASK, TASKS_SQL, ImportInput, TaskRequester, start_task
from backend.workspace.pgn._uploads import upload_slot

__all__ = ("add_import_routes",)

Read = TypeVar("Read")

#: Files of one person that wait for a worker, or are read by one: each takes up to 20 MiB meanwhile.
_IMPORTS_MAX: Final = 3

_ERRORS = (*WRITE_ERRORS, FormMalformed, PgnRefused, ChessNotInstalled, TooManyUploads)
_STRICT = "Refuse the whole file for the first game that cannot be imported, instead of leaving it out."
_DESCRIPTION = """The file's bytes in any of their encodings, a form with the file, or JSON.

A game that cannot be read whole is left out and reported with its line; a file without any other is
refused."""


def add_import_routes(router: APIRouter, deps: RouteDependencies) -> None:
    """The routes that end in ``/import-pgn``."""
    reading = PgnFileReader(load_settings(OutboxSettings).message_bytes_max)
    # Before the unit of work, which reads the body. One for both routes, which share the places.
    ahead = [Depends(upload_slot(deps)), Depends(_keep_strict)]
    # First, as the other one's path would match this one's too.
    _add_new(router, deps, reading, [*ahead, Depends(_keep_place)])
    _add_into_study(router, deps, reading, ahead)


async def _keep_strict(request: Request, strict: Annotated[bool, Query(description=_STRICT)] = False) -> None:
    """For what is read ahead, which is no dependency of its own."""
    request.state.strict = strict


async def _keep_place(
    request: Request,
    title: Annotated[Title | None, Query(description="Instead of a title in the form or the JSON.")] = None,
    parent_id: Annotated[UUID | None, Query(description="Instead of one in the form or the JSON.")] = None,
) -> None:
    """Store the title and the parent that the query names, for the dependency that reads the body."""
    given = {"title": title, "parent_id": parent_id}
    request.state.place = {name: value for name, value in given.items() if value is not None}


def _place(request: Request) -> Mapping[str, Any]:
    # Missing if the query is malformed: FastAPI refuses that only after all dependencies have run.
    return getattr(request.state, "place", {})


def _strict(request: Request) -> bool:
    # Missing if the query is malformed: FastAPI refuses that only after all dependencies have run.
    return getattr(request.state, "strict", False)


def _ahead(
    deps: RouteDependencies, read: Callable[[Request], Awaitable[object]]
) -> Callable[[Request], Awaitable[None]]:
    """Read a file before the transaction, unless its key was answered before: then nobody needs its games."""

    async def ahead(request: Request) -> None:
        if not await deps.answered(request):
            await _once(request, read)

    return ahead


async def _once(request: Request, read: Callable[[Request], Awaitable[Read]]) -> Read:
    """What *read* gives, which reads once for each request."""
    held: Read | None = getattr(request.state, "file", None)
    if held is None:
        held = request.state.file = await read(request)
    return held


def _add_new(
    router: APIRouter, deps: RouteDependencies, reading: PgnFileReader, dependencies: Sequence[Any]
) -> None:
    async def parent_of(request: Request) -> UUID | None:
        request.state.upload = upload = await read_upload(request, ImportPgn, _place(request))
        return upload.parent_id

    async def read(request: Request) -> tuple[FileDigest, ParsedFile | LargeFile]:
        return await reading.read(request.state.upload.data, strict=_strict(request))

    begun = Depends(deps.writing(COMMAND, Role.EDITOR, node=parent_of, ahead=_ahead(deps, read)))

    @router.post(
        "/studies/import-pgn",
        status_code=201,
        dependencies=dependencies,
        summary="Make a study of a PGN file, or a folder of studies",
        description=f"{_DESCRIPTION} More than 64 games become a folder of studies, more than 200 a task.",
        openapi_extra=pgn_body(ImportPgn),
        responses={
            201: {"model": ImportReport},
            **TASK_STARTED,
            **documented_errors(*_ERRORS, TreeRefused, TitleTaken, TooManyImports, ValidationFailed),
        },
    )
    async def import_pgn(request: Request, unit: Annotated[UnitOfWork[Principal], begun]) -> Response:
        upload: Upload = request.state.upload
        digest, file = await _once(request, read)
        tx, root_id = deps.begin_command(request, unit), uuid4()
        if isinstance(file, LargeFile):
            task_id = await _begin(tx, upload, file, digest, root_id=root_id, strict=_strict(request))
            return task_started(request, task_id)
        report = await import_new(
            tx, file, digest, root_id=root_id, parent_id=upload.parent_id, title=upload.title
        )
        unit.about(root_id, *(one.id for one in report.studies))
        where = "studies" if report.folder_id is None else "nodes"
        above = request.url.path.removesuffix("/studies/import-pgn")
        return json_response(201, report, location=f"{above}/{where}/{root_id}")

    _ = import_pgn


def _add_into_study(
    router: APIRouter, deps: RouteDependencies, reading: PgnFileReader, dependencies: Sequence[Any]
) -> None:
    async def read(request: Request) -> tuple[FileDigest, ParsedFile]:
        upload = await read_upload(request, ImportIntoStudy, {})
        return await reading.read_for_study(upload.data, strict=_strict(request))

    ahead = _ahead(deps, read)
    begun = Depends(deps.writing(COMMAND, Role.EDITOR, node="study_id", kind=NodeKind.STUDY, ahead=ahead))

    @router.post(
        "/studies/{study_id}/import-pgn",
        status_code=201,
        dependencies=dependencies,
        summary="Add the games of a PGN file to a study",
        description=f"{_DESCRIPTION} A study has at most 64 chapters; a file with more games is refused.",
        openapi_extra=pgn_body(ImportIntoStudy),
        responses={
            201: {"model": ImportReport},
            **documented_errors(*_ERRORS, StudyFull, ValidationFailed),
        },
    )
    async def import_into(request: Request, unit: Annotated[UnitOfWork[Principal], begun]) -> Response:
        digest, file = await _once(request, read)
        study_id, tx = path_id(request, "study_id"), deps.begin_command(request, unit)
        report = await import_into_study(tx, study_id, file, digest)
        return json_response(201, report, version=tx.node(study_id).version)

    _ = import_into


async def _begin(
    tx: CommandTransaction,
    upload: Upload,
    file: LargeFile,
    digest: FileDigest,
    *,
    root_id: UUID,
    strict: bool,
) -> UUID:
    await tx.executor.fetch(TASKS_SQL["lock_imports_of_user"], tx.caller.actor)
    [waiting] = await tx.executor.fetch(TASKS_SQL["count_open_imports"], tx.caller.actor)
    if waiting["imports"] >= _IMPORTS_MAX:
        raise TooManyImports(_IMPORTS_MAX)
    if upload.parent_id is not None:
        # A purge either finds the task or lets none begin.
        await lock_parent(tx, upload.parent_id, Role.EDITOR)
    payload: dict[str, Any] = digest.payload() | {"asker": tx.caller.actor}
    payload["parent_id"] = None if upload.parent_id is None else str(upload.parent_id)
    given = ImportInput(
        asker=TaskRequester.from_command(tx),
        parent_id=upload.parent_id,
        title=upload.title,
        strict=strict,
        size_bytes=digest.size_bytes,
        sha256=digest.sha256,
        games=file.games,
        pgn=file.pgn,
    )
    return await start_task(
        tx,
        IMPORT_TASK,
        command=(COMMAND, root_id, payload),
        node_id=root_id,
        input_data=given,
        parent_id=upload.parent_id,
    )
