"""The worker of a workspace, which runs the tasks of large imports and of exports.

The effect of a task and the end of the task are written in one transaction, which only the worker with the
task's lease can commit. If a worker is killed before, nothing was written, and the next worker starts the
task again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import structlog
from relaybox.commands import settle_command
from relaybox.db import Database, RetryTransaction, executor_of
from relaybox.errors import RelayboxError
from relaybox.outbox import Listener
from relaybox.settings import TaskSettings, load_settings
from relaybox.tasks import Progress, Task, TaskRunner, complete_task, fail_task
from relaybox.telemetry import CommandMetrics
from relaybox_types.enums import CommandStatus
from shared_types.workspace import Role, WorkspaceEvent
from sqlalchemy.ext.asyncio import AsyncSession

from backend.settings import WorkspaceSettings
from backend.workspace.access import access_of
from backend.workspace.core import (
    ACCESS_SQL,
    CommandTransaction,
    ancestors_from_rows,
    lock_node,
    share_lock_nodes,
)
from backend.workspace.errors import (
    ChessNotInstalled,
    ExportSpaceFull,
    PgnError,
    TaskAttemptsExhausted,
    WorkspaceError,
    require_chess,
)
from backend.workspace.nodes import fetch_tree
from backend.workspace.pgn._imports import COMMAND, import_new
from backend.workspace.pgn._parsed_file import FileDigest, ParsedFile, decode_file
from backend.workspace.pgn._tasks import (
    EXPORT_COMMAND,
    EXPORT_TASK,
    IMPORT_TASK,
    TASK_CREATED_KEY,
    TASKS_SQL,
    ExportInput,
    ImportInput,
    TaskRequester,
)
from backend.workspace.responses import WORKSPACE_ERROR_RESPONSES
from backend.workspace.studies import CHAPTERS_SQL

if TYPE_CHECKING:
    from backend.workspace.pgn._archives import ArchivedStudy, ArchivePlan

__all__ = ("WORKER", "WorkspaceWorker")

WORKER: Final = "workspace-worker"
#: Number of games after which the worker reports progress, which renews the task's lease.
_BATCH_GAMES: Final = 50
#: Percent of progress when an import has parsed its file, or an export has written all studies to its file.
_READ_PERCENT: Final = 80
#: How often one attempt of an export task creates the file. The file is created again if one of its nodes was
#: purged meanwhile.
_EXPORTS_MAX: Final = 3
_COMMAND_TYPES: Final = {IMPORT_TASK: COMMAND, EXPORT_TASK: EXPORT_COMMAND}
_log: Final = structlog.get_logger(__name__)

_Work = Callable[[Task, Progress], Awaitable[None]]


class WorkspaceWorker:
    """Runs the workspace's tasks, imports and exports of PGN files; any number of workers share them.

    *event_bytes_max*: maximum size of an event in bytes; must equal the API's. *limits*: None to read them
    from the environment (``WORKSPACE_*``).
    """

    def __init__(
        self,
        database: Database,
        *,
        settings: TaskSettings,
        event_bytes_max: int,
        metrics: CommandMetrics,
        limits: WorkspaceSettings | None = None,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._limits = limits or load_settings(WorkspaceSettings)
        self._event_bytes_max = event_bytes_max
        self.runner = TaskRunner(
            database,
            {
                IMPORT_TASK: self._failing_on_refusal(self._import),
                EXPORT_TASK: self._failing_on_refusal(self._export),
            },
            on_exhausted=self._give_up,
            settings=settings,
        )
        self._listener = Listener(database, self._on_notification)

    def __repr__(self) -> str:
        return f"<WorkspaceWorker [{self.runner!r}]>"

    async def run(self) -> None:
        """Run tasks until :meth:`stop`; see :meth:`TaskRunner.run`."""
        await self._listener.start()
        try:
            await self.runner.run()
        finally:
            await self._listener.stop()

    def stop(self) -> None:
        """Start no further task, and make :meth:`run` return."""
        self.runner.stop()

    def _on_notification(self, keys: frozenset[str]) -> None:
        if not keys or TASK_CREATED_KEY in keys:
            self.runner.wake()

    def _failing_on_refusal(self, work: _Work) -> _Work:
        """Wrap *work*: a refusal such as PgnError ends the task as FAILED, because a retry would fail too."""

        async def run(task: Task, progress: Progress) -> None:
            try:
                await work(task, progress)
            except (WorkspaceError, PgnError, ChessNotInstalled) as error:
                _log.info("task failed", task_id=str(task.id), error_code=error.error_code)
                await self._fail(task, error)

        return run

    async def _import(self, task: Task, progress: Progress) -> None:
        task_input = ImportInput.model_validate(task.input_data)
        file = await self._read(task_input, progress)
        digest, root_id = (
            FileDigest(size_bytes=task_input.size_bytes, sha256=task_input.sha256),
            _node_of(task),
        )

        async def write(db: AsyncSession) -> None:
            tx = task_input.asker.begin_command(db, _command_of(task), service=WORKER)
            report = await import_new(
                tx, file, digest, root_id=root_id, parent_id=task_input.parent_id, title=task_input.title
            )
            created = {"nodes": [root_id, *(one.id for one in report.studies)]}
            await _complete(tx, task, report.model_dump(mode="json") | created, task_input.asker)

        await self._database.run_in_transaction(write, isolation="READ COMMITTED")
        self._count(task, CommandStatus.COMPLETED)

    async def _read(self, task_input: ImportInput, progress: Progress) -> ParsedFile:
        require_chess()
        from backend.workspace.pgn._games import GameReader

        data = await asyncio.to_thread(decode_file, task_input.pgn)
        reader = GameReader(data, strict=task_input.strict, event_bytes_max=self._event_bytes_max)
        while await asyncio.to_thread(reader.read, _BATCH_GAMES):
            await progress(_READ_PERCENT * min(1.0, reader.seen / task_input.games))
        return reader.file()

    async def _export(self, task: Task, progress: Progress) -> None:
        require_chess()
        from backend.workspace.pgn._archives import plan_archive

        task_input, node_id = ExportInput.model_validate(task.input_data), _node_of(task)
        for _ in range(_EXPORTS_MAX):
            content = await asyncio.to_thread(plan_archive, await self._tree(node_id, task_input.asker))
            file = await self._archive(content.studies, progress)
            if await self._end_export(task, task_input.asker, content, file):
                self._count(task, CommandStatus.COMPLETED)
                return
        raise RetryTransaction(
            f"nodes below {node_id} were purged each of the {_EXPORTS_MAX} times that the export's file was "
            "created; start the task again"
        )

    async def _archive(self, studies: Sequence["ArchivedStudy"], progress: Progress) -> bytes:
        from backend.workspace.pgn._archives import Archive

        archive = Archive(bytes_max=self._limits.export_bytes_max)
        for number, study in enumerate(studies):
            async with self._database.connection() as connection:
                rows = await connection.fetch(CHAPTERS_SQL["chapters"], study.study_id)
            await asyncio.to_thread(archive.add, study, [row["row"] for row in rows])
            await progress(_READ_PERCENT * (number + 1) / len(studies))
        return await asyncio.to_thread(archive.close)

    async def _end_export(
        self, task: Task, requester: TaskRequester, content: "ArchivePlan", file: bytes
    ) -> bool:
        """Store the file and end the task; return False if one of the nodes in the file was purged meanwhile.

        Raises:
            NodeNotFound, RoleMissing: The requester may no longer read the exported node.
            ExportSpaceFull: The kept files of the requester would exceed the maximum size.
        """
        node_id, payload = _node_of(task), {"studies": len(content.studies), "bytes": len(file)}
        bytes_max = self._limits.export_kept_bytes_max

        async def write(db: AsyncSession) -> bool:
            tx = requester.begin_command(db, _command_of(task), service=WORKER)
            # The file must not contain purged nodes. After these locks a purge waits for this transaction,
            # and then finds and deletes the file.
            if not await _lock_exported_nodes(tx, node_id, content.named):
                return False
            await tx.emit(WorkspaceEvent.PGN_EXPORTED, node_id, payload)
            await tx.record(EXPORT_COMMAND, node_id, {})
            await _complete(tx, task, {**payload, "nodes": sorted(content.named)}, requester)
            await tx.executor.fetch(TASKS_SQL["lock_exports"], requester.actor, None)
            archive = (task.id, node_id, requester.actor, file, bytes_max)
            if not await tx.executor.fetch(TASKS_SQL["insert_archive"], *archive):
                raise ExportSpaceFull(bytes_max)
            return True

        return await self._database.run_in_transaction(write, isolation="READ COMMITTED")

    async def _tree(self, node_id: UUID, requester: TaskRequester) -> str:
        """Return the nodes below *node_id* that *requester* may read now, as JSON text."""
        async with self._database.connection() as connection:
            chain = await connection.fetch(
                ACCESS_SQL["ancestors"], node_id, requester.actor, requester.link_id
            )
            access = access_of(ancestors_from_rows(chain), requester.actor)
            access.require(Role.VIEWER)
            return await fetch_tree(connection, access, requester.link_id)

    async def _give_up(self, task: Task) -> None:
        await self._fail(task, TaskAttemptsExhausted(task.attempts - 1))

    async def _fail(self, task: Task, error: RelayboxError) -> None:
        kept = TaskRequester.model_validate(task.input_data["asker"]).stored_input()

        async def write(db: AsyncSession) -> None:
            executor, document = executor_of(db), error_document(error)
            await fail_task(executor, task.fence, error=document, input_data=kept)
            await settle_command(executor, _command_of(task), CommandStatus.FAILED, document)

        await self._database.run_in_transaction(write, isolation="READ COMMITTED")
        self._count(task, error.error_code)

    def _count(self, task: Task, outcome: str) -> None:
        self._metrics.record_command(command_type=_COMMAND_TYPES[task.task_type], outcome=outcome)


async def _lock_exported_nodes(tx: CommandTransaction, node_id: UUID, named: Set[UUID]) -> bool:
    """Lock *node_id* FOR UPDATE, and the other nodes in *named* FOR SHARE; return False if one was purged.

    The order is that of :mod:`backend.workspace.core._locks`: by id, but *node_id* first if it is a root.

    Raises:
        NodeNotFound, RoleMissing: The command's sender may no longer read *node_id*.
    """
    root = (await tx.access(node_id)).node.parent_id is None
    others = sorted(named - {node_id})
    before = [] if root else [one for one in others if one < node_id]
    shared = await share_lock_nodes(tx, before)
    await lock_node(tx, node_id, Role.VIEWER)
    shared += await share_lock_nodes(tx, others[len(before) :])
    return shared == len(others)


async def _complete(
    tx: CommandTransaction, task: Task, result: Mapping[str, Any], requester: TaskRequester
) -> None:
    """End *task* as COMPLETED in the transaction of its effect; keep only *requester* of its input."""
    await complete_task(tx.executor, task.fence, result=result, input_data=requester.stored_input())
    await settle_command(tx.executor, tx.command_id, CommandStatus.COMPLETED)


def _node_of(task: Task) -> UUID:
    assert task.aggregate_id is not None, "a task of a workspace has a node"
    return task.aggregate_id


def _command_of(task: Task) -> UUID:
    assert task.command_id is not None, "a task of a workspace has a command"
    return task.command_id


def error_document(error: RelayboxError) -> dict[str, Any]:
    """Return the JSON of *error* that a task stores: the fields of the HTTP response to this error."""
    known = next((one for one in type(error).__mro__ if one in WORKSPACE_ERROR_RESPONSES), None)
    document = {"error_code": error.error_code, "message": str(error)}
    return document if known is None else {**document, **WORKSPACE_ERROR_RESPONSES[known].fields(error)}
