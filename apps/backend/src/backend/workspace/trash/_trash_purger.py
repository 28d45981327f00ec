"""Purge batches whose time in the bin has passed."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import structlog
from relaybox.commands import Caller
from relaybox.db import TRANSIENT_ERRORS, Database, DatabaseUnavailable, RetryTransaction, executor_of
from relaybox.periodic import SharedJob
from relaybox.settings import load_settings
from relaybox.telemetry import CommandMetrics, traceback_of
from relaybox_types.enums import CommandStatus
from sqlalchemy.ext.asyncio import AsyncSession

from backend.settings import ServiceType, WorkspaceSettings
from backend.workspace.core import CommandTransaction, lock_roots
from backend.workspace.trash._purge import PURGE_COMMAND, PURGE_SQL, purge_batch

__all__ = ("TrashPurger",)

_log: Final = structlog.get_logger(__name__)
#: The actor of automatic purges.
_ACTOR: Final = ServiceType.WORKSPACE_WORKER.value
_INTERVAL_S: Final = 60.0
#: Maximum number of batches per run, so that a run ends even if years of batches are due.
_BATCHES_MAX: Final = 1_000
#: Limits per run. _FAILURES_MAX: number of failed batches after which the run ends. _RETRIES_MAX: number of
#: batches that failed in earlier runs and are tried again; the run leaves out all other such batches, so that
#: they do not delay the rest.
_FAILURES_MAX: Final = 10
_RETRIES_MAX: Final = 5


class TrashPurger(SharedJob):
    """Purges batches that have been in the bin for more than ``WORKSPACE_TRASH_KEEP_DAYS`` days.

    Each batch is purged in a separate transaction, which locks the tree of the batch; trees that another
    transaction has locked are skipped. Several processes may have a purger; one of them performs each run.
    """

    def __init__(
        self, database: Database, settings: WorkspaceSettings | None = None, *, metrics: CommandMetrics
    ) -> None:
        """*settings*: None to read them from the environment (``WORKSPACE_*``)."""
        super().__init__(
            self.purge_due, name="workspace.purge-bin", interval_s=_INTERVAL_S, database=database
        )
        self._metrics = metrics
        self._keep_days = (settings or load_settings(WorkspaceSettings)).trash_keep_days
        #: Topmost nodes of batches that could not be purged; the most recent attempt is the last.
        self._failed: dict[UUID, None] = {}

    def __repr__(self) -> str:
        return f"<TrashPurger [keeps {self._keep_days or 'all'} days]>"

    async def purge_due(self) -> int:
        """Purge the batches (nodes trashed together) that are due, oldest first; return their number.

        A batch whose purge fails, for example by the statement timeout, is logged at its first failure and
        retried in a later run; the run continues with the other batches.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be reached.
            Exception: The search for the next batch failed.
        """
        purged, failures, retries = 0, 0, list(self._failed)[:_RETRIES_MAX]
        for node_id in retries:
            self._move_to_end(node_id)
        while self._keep_days and not self.stopping and purged < _BATCHES_MAX and failures < _FAILURES_MAX:
            chosen = list[UUID]()
            try:
                excluded = [node_id for node_id in self._failed if node_id not in retries]
                if not await self._purge_next(excluded, chosen):
                    break
            except DatabaseUnavailable:
                raise
            except Exception as error:
                if not chosen:
                    raise
                self._record_failure(chosen[-1], error)
                failures += 1
                retries = [node_id for node_id in retries if node_id != chosen[-1]]
            else:
                purged += 1
                self._failed.pop(chosen[-1], None)
        return purged

    def _record_failure(self, node_id: UUID, error: Exception) -> None:
        """Log the first failure of a batch, and exclude the batch from the current run."""
        if node_id not in self._failed:
            _log.error("batch not purged; trying again later", node_id=str(node_id), **_reason(error))
        self._move_to_end(node_id)

    def _move_to_end(self, node_id: UUID) -> None:
        # Even if no attempt was made: a batch that was restored or purged meanwhile must not remain the
        # first.
        self._failed.pop(node_id, None)
        self._failed[node_id] = None

    async def _purge_next(self, excluded: Sequence[UUID], chosen: list[UUID]) -> bool:
        """Purge the oldest batch that is due; return False if there is none.

        Args:
            excluded: Topmost nodes of batches to leave out.
            chosen: Gets the topmost node of the batch before the purge: the caller knows the node after an
                error.
        """

        async def purge(db: AsyncSession) -> bool:
            # Twice: the query locks a tree, but its result may be older than the lock. The second result is
            # not.
            due, again = [
                await executor_of(db).fetch(PURGE_SQL["lock_next_due"], self._keep_days, excluded)
                for _ in range(2)
            ]
            if due != again:
                raise RetryTransaction("the bin has changed during the query; repeat the transaction")
            if not due:
                return False
            node_id: UUID = due[0]["id"]
            chosen.append(node_id)
            tx = CommandTransaction(db, Caller(actor=_ACTOR, source_service=_ACTOR, internal=True))
            access = await lock_roots(tx, node_id)
            access.require_trashed()
            counts = await purge_batch(tx, access, reason=f"in the bin for over {self._keep_days} days")
            _log.info("batch purged from the bin", node_id=str(node_id), nodes=counts.nodes)
            return True

        # READ COMMITTED, because the erasure must see all rows that were committed before its statement.
        is_purged = await self._database.run_in_transaction(purge, isolation="READ COMMITTED")
        if is_purged:
            self._metrics.record_command(command_type=PURGE_COMMAND, outcome=CommandStatus.COMPLETED)
        return is_purged


def _reason(error: Exception) -> dict[str, Any]:
    """Return the log fields of *error*; a traceback only for errors that are not transient."""
    if isinstance(error, TRANSIENT_ERRORS):
        return {"reason": str(error)}
    return {"reason": type(error).__name__, "traceback": traceback_of(error)}
