"""``POST /export``: a task writes the studies below a node as a zip of PGN files."""

from math import ceil
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Request
from relaybox.http import json_body
from shared_types.workspace import Role
from shared_types.workspace_pgn_api import ExportNode
from starlette.responses import Response

from backend.settings import WorkspaceSettings
from backend.workspace.core import CommandTransaction
from backend.workspace.errors import (
    ChessNotInstalled,
    ExportSpaceFull,
    NodeExportsBusy,
    TooManyExports,
    require_chess,
)
from backend.workspace.http import (
    WRITE_ERRORS,
    Dependencies,
    begin_command,
    documented_errors,
    parse_body,
)
from backend.workspace.pgn._task_routes import TASK_STARTED, task_started
from backend.workspace.pgn._tasks import (
    EXPORT_COMMAND,
    EXPORT_TASK,
    TASKS_SQL,
    ExportInput,
    TaskRequester,
    start_task,
)

__all__ = ("archive_router",)

_EXPORT_ERRORS = (ChessNotInstalled, TooManyExports, NodeExportsBusy, ExportSpaceFull)
archive_router = APIRouter()


async def _node_id(request: Request) -> UUID:
    return (await parse_body(request, ExportNode)).node_id


@archive_router.post(
    "/export",
    status_code=202,
    summary="Export a workspace, a folder or a study as a zip file of PGN files",
    description="A task creates the file, which contains the studies that you may read.",
    openapi_extra=json_body(ExportNode),
    responses={**TASK_STARTED, **documented_errors(*WRITE_ERRORS, *_EXPORT_ERRORS)},
)
async def export(
    request: Request,
    dependencies: Dependencies,
    tx: Annotated[CommandTransaction, Depends(begin_command(EXPORT_COMMAND, Role.VIEWER, node=_node_id))],
) -> Response:
    require_chess()
    node_id = (await parse_body(request, ExportNode)).node_id
    await _require_room(tx, node_id, dependencies.settings)
    task_id = await start_task(
        tx,
        EXPORT_TASK,
        # A new id, not the node's: other users may export the same node at the same time, with other
        # contents.
        command=(EXPORT_COMMAND, uuid4(), {"node_id": str(node_id)}),
        node_id=node_id,
        input_data=ExportInput(asker=TaskRequester.from_command(tx)),
    )
    return task_started(request, task_id)


async def _require_room(tx: CommandTransaction, node_id: UUID, limits: WorkspaceSettings) -> None:
    """Check the limits of exports, under a lock that excludes other exports of the user and the node.

    Editors of the node are not refused because of other users' exports, so readers cannot block editors.

    Raises:
        TooManyExports: The user has the maximum number of pending or running exports.
        NodeExportsBusy: The node has the maximum number of pending or running exports, and the user is no
            editor.
        ExportSpaceFull: The kept files of the user's exports have the maximum size.
    """
    person = tx.caller.actor
    await tx.executor.fetch(TASKS_SQL["lock_exports"], person, str(node_id))
    [open_] = await tx.executor.fetch(TASKS_SQL["count_open_exports"], person, node_id, limits.export_keep_h)
    if open_["of_person"] >= limits.export_open_max:
        raise TooManyExports(limits.export_open_max)
    if open_["kept_bytes"] >= limits.export_kept_bytes_max:
        retry_after_s = max(1, ceil(open_["free_in_s"]))
        raise ExportSpaceFull(limits.export_kept_bytes_max, retry_after_s=retry_after_s)
    if open_["of_node"] >= limits.export_node_open_max and not (await tx.access(node_id)).may(Role.EDITOR):
        raise NodeExportsBusy(limits.export_node_open_max)
