"""What has been in the bin for long enough leaves by itself."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import structlog
from relaybox.commands import Caller
from relaybox.db import TRANSIENT_ERRORS, Database, DatabaseUnavailable, RetryTransaction, executor_of
from relaybox.settings import load_settings
from relaybox.telemetry import CommandMetrics
from relaybox_types.enums import CommandStatus
from sqlalchemy.ext.asyncio import AsyncSession

from backend.settings import ServiceType, WorkspaceSettings
from backend.workspace.core import CommandTransaction
from backend.workspace.trash._purge import PURGE_COMMAND, PURGE_SQL, purge_batch

__all__ = ("TrashPurger",)

_log: Final = structlog.get_logger(__name__)
#: Who purges what nobody has asked to.
_WORKER: Final = ServiceType.WORKSPACE_WORKER.value
_LOOK_S: Final = 60.0
#: Batches of one look: a bin that was never emptied leaves in pieces, and others get their turn.
_BATCHES_MAX: Final = 1_000
#: Of one look: batches that cannot be purged, and those of them that failed before and are tried again. The
#: others that failed are passed over meanwhile, so that any number of them holds up nothing else.
_FAILED_MAX: Final = 10
_AGAIN_MAX: Final = 5


class TrashPurger:
    """Purges what has been in the bin for too long; a part of a service, of which any number may run.

    Each batch is a transaction of its own. Two keepers never take the same one: each locks the tree, and
    passes over those that somebody works on.
    """

    def __init__(
        self, database: Database, settings: WorkspaceSettings | None = None, *, metrics: CommandMetrics
    ) -> None:
        """*settings* is read from ``WORKSPACE_*`` if left out."""
        self._database = database
        self._metrics = metrics
        self._keep_days = (settings or load_settings(WorkspaceSettings)).trash_keep_days
        self._stopping = asyncio.Event()
        #: Batches that could not be purged, the one whose turn was last at the end.
        self._failed: dict[UUID, None] = {}

    def __repr__(self) -> str:
        return f"<TrashPurger [keeps {self._keep_days or 'all'} days]>"

    async def run(self) -> None:
        """Look once a minute until :meth:`stop`; PostgreSQL may be away meanwhile."""
        while not self._stopping.is_set():
            await self.look()
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    def stop(self) -> None:
        """End :meth:`run` after the batch in hand."""
        self._stopping.set()

    async def look(self) -> int:
        """Purge what is due, oldest first; returns how many batches left.

        What cannot be purged, or not in the time of a statement, is logged once and stays for a later look;
        the others leave all the same.
        """
        purged, failed, again = 0, 0, list(self._failed)[:_AGAIN_MAX]
        for one in again:
            self._put_last(one)
        while self._keep_days and purged < _BATCHES_MAX and failed < _FAILED_MAX:
            taken = list[UUID]()
            try:
                passed_over = [one for one in self._failed if one not in again]
                if self._stopping.is_set() or not await self._purge_one(passed_over, taken):
                    break
                purged += 1
                self._failed.pop(taken[-1], None)
            except DatabaseUnavailable as error:
                _log.warning("the bin is not emptied for now", reason=str(error))
                break
            except Exception as error:  # noqa: BLE001 - a janitor must not end the service; the schema may come later
                self._tell(error, taken)
                if not taken:
                    break
                failed += 1
                again = [one for one in again if one != taken[-1]]
        return purged

    def _tell(self, error: Exception, taken: Sequence[UUID]) -> None:
        """Log why a batch stays, the first time that it does, and keep it from being tried at once."""
        if not taken:
            _log.warning("the bin is not emptied for now", **_reason(error))
            return
        known = taken[-1] in self._failed
        self._put_last(taken[-1])
        if not known:
            told = "this batch stays in the bin; it is tried again later, the others leave"
            _log.error(told, node_id=str(taken[-1]), **_reason(error))

    def _put_last(self, node_id: UUID) -> None:
        # Tried or not: what is not due any more, as it was restored or purged, must not stay the first.
        self._failed.pop(node_id, None)
        self._failed[node_id] = None

    async def _purge_one(self, passed_over: Sequence[UUID], taken: list[UUID]) -> bool:
        async def purge(db: AsyncSession) -> bool:
            # Twice: the first look may be older than the lock that it took; what comes back unchanged is so.
            due, again = [
                await executor_of(db).fetch(PURGE_SQL["lock_next_due"], self._keep_days, passed_over)
                for _ in range(2)
            ]
            if due != again:
                raise RetryTransaction("the bin has changed meanwhile; look again")
            if not due:
                return False
            node_id: UUID = due[0]["id"]
            taken.append(node_id)
            tx = CommandTransaction(db, Caller(actor=_WORKER, source_service=_WORKER, internal=True))
            access = await tx.lock_roots(node_id)
            access.require_trashed()
            counts = await purge_batch(tx, access, reason=f"in the bin for over {self._keep_days} days")
            _log.info("purged from the bin", node_id=str(node_id), nodes=counts.nodes)
            return True

        # Not another isolation: what is erased must be all that is there by now.
        is_purged = await self._database.run_in_transaction(purge, isolation="READ COMMITTED")
        if is_purged:
            self._metrics.record_command(command_type=PURGE_COMMAND, outcome=CommandStatus.COMPLETED)
        return is_purged


def _reason(error: Exception) -> dict[str, Any]:
    """What a log says of *error*: where it fell is of no use for what passes by itself."""
    if isinstance(error, TRANSIENT_ERRORS):
        return {"reason": str(error)}
    return {"reason": type(error).__name__, "exc_info": error}
