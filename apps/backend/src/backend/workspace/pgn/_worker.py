"""The worker of a workspace: imports and exports that outlive their requests.

It is as safe as the API: what a task changes is one transaction with the task's own end, which only whoever
holds the task can commit. A worker that is killed leaves nothing, and whoever comes next begins anew.
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
from backend.workspace.answers import WORKSPACE_ANSWERS
from backend.workspace.core import ACCESS, Work, read_chain
from backend.workspace.errors import (
    ChessNotInstalled,
    ExportSpaceFull,
    PgnError,
    TaskGaveUp,
    WorkspaceError,
    require_chess,
)
from backend.workspace.nodes import fetch_tree
from backend.workspace.pgn._files import FileMark, ReadFile, unpacked
from backend.workspace.pgn._imports import COMMAND, import_new
from backend.workspace.pgn._tasks import (
    EXPORT_COMMAND,
    EXPORT_TASK,
    IMPORT_TASK,
    TASK_NEWS,
    TASKS,
    Asker,
    ExportInput,
    ImportInput,
)
from backend.workspace.studies import CHAPTERS

if TYPE_CHECKING:
    from backend.workspace.pgn._archives import Filed, FiledStudy

__all__ = ("WORKER", "WorkspaceWorker")

WORKER: Final = "workspace-worker"
#: Games between two looks at whether the task is still ours.
_BATCH_GAMES: Final = 50
#: Percent of an import that is reading, and of an export.
_READ_PERCENT: Final = 80
#: Begun anew in one attempt because something was purged meanwhile.
_EXPORTS_MAX: Final = 3
_COMMAND_TYPES: Final = {IMPORT_TASK: COMMAND, EXPORT_TASK: EXPORT_COMMAND}
_log: Final = structlog.get_logger(__name__)

_Work = Callable[[Task, Progress], Awaitable[None]]


class WorkspaceWorker:
    """Carries out the tasks of workspaces; any number of workers share them.

    *event_bytes_max* is what an event may take, as for the API. *limits* is read from ``WORKSPACE_*`` if
    left out.
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
            {IMPORT_TASK: self._ending(self._import), EXPORT_TASK: self._ending(self._export)},
            on_exhausted=self._give_up,
            settings=settings,
        )
        self._listener = Listener(database, self._hear)

    def __repr__(self) -> str:
        return f"<WorkspaceWorker [{self.runner!r}]>"

    async def run(self) -> None:
        """Work until :meth:`stop`; see :meth:`TaskRunner.run`."""
        await self._listener.start()
        try:
            await self.runner.run()
        finally:
            await self._listener.stop()

    def stop(self) -> None:
        """Take nothing new, and let :meth:`run` return."""
        self.runner.stop()

    def _hear(self, keys: frozenset[str]) -> None:
        if not keys or TASK_NEWS in keys:
            self.runner.wake()

    def _ending(self, work: _Work) -> _Work:
        """*work*, whose refusals end its task: they would be the same the next time."""

        async def ended(task: Task, progress: Progress) -> None:
            try:
                await work(task, progress)
            except (WorkspaceError, PgnError, ChessNotInstalled) as refusal:
                _log.info("task refused", task_id=str(task.id), error_code=refusal.error_code)
                await self._refuse(task, refusal)

        return ended

    async def _import(self, task: Task, progress: Progress) -> None:
        asked = ImportInput.model_validate(task.input_data)
        file = await self._read(asked, progress)
        mark, root_id = FileMark(size_bytes=asked.size_bytes, sha256=asked.sha256), _node_of(task)

        async def write(db: AsyncSession) -> None:
            work = asked.asker.work(db, _command_of(task), service=WORKER)
            report = await import_new(
                work, file, mark, root_id=root_id, parent_id=asked.parent_id, title=asked.title
            )
            made = {"nodes": [root_id, *(one.id for one in report.studies)]}
            await _complete(work, task, report.model_dump(mode="json") | made, asked.asker)

        await self._database.run_in_transaction(write, isolation="READ COMMITTED")
        self._count(task, CommandStatus.COMPLETED)

    async def _read(self, asked: ImportInput, progress: Progress) -> ReadFile:
        require_chess()
        from backend.workspace.pgn._games import GameReader

        data = await asyncio.to_thread(unpacked, asked.pgn)
        reader = GameReader(data, strict=asked.strict, event_bytes_max=self._event_bytes_max)
        while await asyncio.to_thread(reader.read, _BATCH_GAMES):
            await progress(_READ_PERCENT * min(1.0, reader.seen / asked.games))
        return reader.file()

    async def _export(self, task: Task, progress: Progress) -> None:
        require_chess()
        from backend.workspace.pgn._archives import filed

        asked, node_id = ExportInput.model_validate(task.input_data), _node_of(task)
        for _ in range(_EXPORTS_MAX):
            content = await asyncio.to_thread(filed, await self._tree(node_id, asked.asker))
            file = await self._archive(content.studies, progress)
            if await self._end_export(task, asked.asker, content, file):
                self._count(task, CommandStatus.COMPLETED)
                return
        raise RetryTransaction("something is purged whenever this is exported; it is tried again later")

    async def _archive(self, studies: Sequence["FiledStudy"], progress: Progress) -> bytes:
        from backend.workspace.pgn._archives import Archive

        archive = Archive(bytes_max=self._limits.export_bytes_max)
        for number, study in enumerate(studies):
            async with self._database.connection() as connection:
                rows = await connection.fetch(CHAPTERS["chapters"], study.study_id)
            await asyncio.to_thread(archive.add, study, [row["row"] for row in rows])
            await progress(_READ_PERCENT * (number + 1) / len(studies))
        return await asyncio.to_thread(archive.close)

    async def _end_export(self, task: Task, asker: Asker, content: "Filed", file: bytes) -> bool:
        """Write that *file* was made; false, and nothing, if what it names was purged meanwhile."""
        node_id, told = _node_of(task), {"studies": len(content.studies), "bytes": len(file)}
        bytes_max = self._limits.export_kept_bytes_max

        async def write(db: AsyncSession) -> bool:
            work = asker.work(db, _command_of(task), service=WORKER)
            # What was purged meanwhile must not be in the file; from here on a purge waits, and finds it.
            if not await _hold_named(work, node_id, content.named):
                return False
            await work.say(WorkspaceEvent.PGN_EXPORTED, node_id, told)
            await work.record(EXPORT_COMMAND, node_id, {})
            await _complete(work, task, {**told, "nodes": sorted(content.named)}, asker)
            await work.executor.fetch(TASKS["exports_one_at_a_time"], asker.actor, None)
            archive = (task.id, node_id, asker.actor, file, bytes_max)
            if not await work.executor.fetch(TASKS["keep_archive"], *archive):
                raise ExportSpaceFull(bytes_max)
            return True

        return await self._database.run_in_transaction(write, isolation="READ COMMITTED")

    async def _tree(self, node_id: UUID, asker: Asker) -> str:
        """What *asker* may read there now."""
        async with self._database.connection() as connection:
            chain = await connection.fetch(ACCESS["chain"], node_id, asker.actor, asker.link_id)
            access = access_of(read_chain(chain), asker.actor)
            access.require(Role.VIEWER)
            return await fetch_tree(connection, access, asker.link_id)

    async def _give_up(self, task: Task) -> None:
        await self._refuse(task, TaskGaveUp(task.attempts - 1))

    async def _refuse(self, task: Task, error: RelayboxError) -> None:
        kept = Asker.model_validate(task.input_data["asker"]).kept()

        async def write(db: AsyncSession) -> None:
            executor, document = executor_of(db), document_of(error)
            await fail_task(executor, task.fence, error=document, input_data=kept)
            await settle_command(executor, _command_of(task), CommandStatus.FAILED, document)

        await self._database.run_in_transaction(write, isolation="READ COMMITTED")
        self._count(task, error.error_code)

    def _count(self, task: Task, outcome: str) -> None:
        self._metrics.record_command(command_type=_COMMAND_TYPES[task.task_type], outcome=outcome)


async def _hold_named(work: Work, node_id: UUID, named: Set[UUID]) -> bool:
    """Hold *node_id*, and keep all of *named* from being purged; false if one of them was.

    In the order of everybody who locks several nodes, so that nobody waits for each other: a root, then ids.
    """
    root = (await work.access(node_id)).node.parent_id is None
    others = sorted(named - {node_id})
    before = [] if root else [one for one in others if one < node_id]
    first = await work.share(before)
    await work.hold(node_id, Role.VIEWER)
    then = await work.share(others[len(before) :])
    return first + then == len(others)


async def _complete(work: Work, task: Task, result: Mapping[str, Any], asker: Asker) -> None:
    """End a task in the transaction of its effect; what it was given goes, as it has become something."""
    await complete_task(work.executor, task.fence, result=result, input_data=asker.kept())
    await settle_command(work.executor, work.command_id, CommandStatus.COMPLETED)


def _node_of(task: Task) -> UUID:
    assert task.aggregate_id is not None, "every task of a workspace is for a node"
    return task.aggregate_id


def _command_of(task: Task) -> UUID:
    assert task.command_id is not None, "every task of a workspace is a command's"
    return task.command_id


def document_of(error: RelayboxError) -> dict[str, Any]:
    """What a task keeps of *error*: the same as the body of the same refusal over HTTP."""
    known = next((one for one in type(error).__mro__ if one in WORKSPACE_ANSWERS), None)
    document = {"error_code": error.error_code, "message": str(error)}
    return document if known is None else {**document, **WORKSPACE_ANSWERS[known].fields(error)}
