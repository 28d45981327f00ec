"""Routes that import a PGN file: into a study, as a new study, or as a new folder of studies."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Query, Request
from relaybox.http import ValidationFailed
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
from backend.workspace.http import (
    WRITE_ERRORS,
    begin_command,
    dependencies_of,
    documented_errors,
    json_response,
    path_id,
)
from backend.workspace.pgn._body import Upload, pgn_body, read_upload
from backend.workspace.pgn._file_reader import LargeFile
from backend.workspace.pgn._imports import COMMAND, import_into_study, import_new
from backend.workspace.pgn._parsed_file import FileDigest, ParsedFile
from backend.workspace.pgn._task_routes import TASK_STARTED, task_started
from backend.workspace.pgn._tasks import IMPORT_TASK, TASKS_SQL, ImportInput, TaskRequester, start_task
from backend.workspace.pgn._uploads import PgnUploads, reserve_upload_slot

__all__ = ("import_router",)

Read = TypeVar("Read")

#: Maximum number of pending or running tasks of one user that import a file, which may have 20 MiB.
_IMPORTS_MAX: Final = 3

_ERRORS = (*WRITE_ERRORS, FormMalformed, PgnRefused, ChessNotInstalled, TooManyUploads)
_STRICT = "Refuse the whole file if a game cannot be imported, instead of skipping the game."
_DESCRIPTION = """The body is the file, a form with the file, or JSON.

A game that cannot be parsed completely is skipped and reported with its line. If no game can be imported, the
file is refused."""


async def _store_strict(
    request: Request, strict: Annotated[bool, Query(description=_STRICT)] = False
) -> None:
    """Store the query parameter ``strict`` in the state of the request.

    The parser of the file needs the parameter, and runs before the handler of the route.
    """
    request.state.strict = strict


async def _store_query_fields(
    request: Request,
    title: Annotated[
        Title | None, Query(description="The title; not allowed if the form or the JSON has one.")
    ] = None,
    parent_id: Annotated[
        UUID | None, Query(description="The parent; not allowed if the form or the JSON has one.")
    ] = None,
) -> None:
    """Store the query parameters ``title`` and ``parent_id`` in the state of the request.

    :func:`read_upload`, which runs before the handler of the route, needs them.
    """
    given = {"title": title, "parent_id": parent_id}
    request.state.query_fields = {name: value for name, value in given.items() if value is not None}


def _query_fields(request: Request) -> Mapping[str, Any]:
    # Missing if the query is malformed: FastAPI refuses such a request only after all dependencies have run.
    return getattr(request.state, "query_fields", {})


def _is_strict(request: Request) -> bool:
    # Missing if the query is malformed: FastAPI refuses such a request only after all dependencies have run.
    return getattr(request.state, "strict", False)


def _unless_stored(
    read: Callable[[Request], Awaitable[object]],
) -> Callable[[Request], Awaitable[None]]:
    """Return a function that calls *read*, unless a response is stored under the key of the request."""

    async def read_unless_stored(request: Request) -> None:
        if not await dependencies_of(request).has_stored_response(request):
            await _once(request, read)

    return read_unless_stored


async def _once(request: Request, read: Callable[[Request], Awaitable[Read]]) -> Read:
    """Call *read* at the first call for a request; return its stored result at later calls."""
    file: Read | None = getattr(request.state, "file", None)
    if file is None:
        file = request.state.file = await read(request)
    return file


async def _parent_id(request: Request) -> UUID | None:
    request.state.upload = upload = await read_upload(request, ImportPgn, _query_fields(request))
    return upload.parent_id


async def _read_file(request: Request) -> tuple[FileDigest, ParsedFile | LargeFile]:
    data = request.state.upload.data
    return await PgnUploads.of(request).reader.read(data, strict=_is_strict(request))


async def _read_file_for_study(request: Request) -> tuple[FileDigest, ParsedFile]:
    upload = await read_upload(request, ImportIntoStudy, {})
    return await PgnUploads.of(request).reader.read_for_study(upload.data, strict=_is_strict(request))


# These dependencies run before that of the command, which reads the body.
_BEFORE_BODY: Final = (Depends(reserve_upload_slot), Depends(_store_strict))
import_router = APIRouter()


# Declared before /studies/{study_id}/import-pgn and /studies/{study_id}, which may match this path.
@import_router.post(
    "/studies/import-pgn",
    status_code=201,
    dependencies=[*_BEFORE_BODY, Depends(_store_query_fields)],
    summary="Create a study, or a folder of studies, from a PGN file",
    description=f"{_DESCRIPTION} More than 64 games become a folder of studies, and a task imports more than"
    " 200 games.",
    openapi_extra=pgn_body(ImportPgn),
    responses={
        201: {"model": ImportReport},
        **TASK_STARTED,
        **documented_errors(*_ERRORS, TreeRefused, TitleTaken, TooManyImports, ValidationFailed),
    },
)
async def import_pgn(
    request: Request,
    tx: Annotated[
        CommandTransaction,
        Depends(
            begin_command(
                COMMAND, Role.EDITOR, node=_parent_id, before_transaction=_unless_stored(_read_file)
            )
        ),
    ],
) -> Response:
    upload: Upload = request.state.upload
    digest, file = await _once(request, _read_file)
    root_id = uuid4()
    if isinstance(file, LargeFile):
        task_id = await _start_import(tx, upload, file, digest, root_id=root_id, strict=_is_strict(request))
        return task_started(request, task_id)
    report = await import_new(
        tx, file, digest, root_id=root_id, parent_id=upload.parent_id, title=upload.title
    )
    tx.tag_response(root_id, *(one.id for one in report.studies))
    collection = "studies" if report.folder_id is None else "nodes"
    prefix = request.url.path.removesuffix("/studies/import-pgn")
    return json_response(201, report, location=f"{prefix}/{collection}/{root_id}")


@import_router.post(
    "/studies/{study_id}/import-pgn",
    status_code=201,
    dependencies=_BEFORE_BODY,
    summary="Add the games of a PGN file to a study",
    description=f"{_DESCRIPTION} A study has at most 64 chapters; a file with more games is refused.",
    openapi_extra=pgn_body(ImportIntoStudy),
    responses={
        201: {"model": ImportReport},
        **documented_errors(*_ERRORS, StudyFull, ValidationFailed),
    },
)
async def import_into(
    request: Request,
    tx: Annotated[
        CommandTransaction,
        Depends(
            begin_command(
                COMMAND,
                Role.EDITOR,
                node="study_id",
                kind=NodeKind.STUDY,
                before_transaction=_unless_stored(_read_file_for_study),
            )
        ),
    ],
) -> Response:
    digest, file = await _once(request, _read_file_for_study)
    study_id = path_id(request, "study_id")
    report = await import_into_study(tx, study_id, file, digest)
    return json_response(201, report, version=tx.node(study_id).version)


async def _start_import(
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
        # With this lock, a purge of the parent either finds the task, or has ended before the task is
        # created.
        await lock_parent(tx, upload.parent_id, Role.EDITOR)
    payload: dict[str, Any] = digest.payload() | {"asker": tx.caller.actor}
    payload["parent_id"] = None if upload.parent_id is None else str(upload.parent_id)
    task_input = ImportInput(
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
        input_data=task_input,
        parent_id=upload.parent_id,
    )
