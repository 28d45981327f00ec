"""What has been in the bin for long enough leaves by itself."""

import asyncio
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import structlog
from relaybox.commands import Caller
from relaybox.db import TRANSIENT_ERRORS, Database, RetryTransaction, executor_of
from relaybox.settings import load_settings
from sqlalchemy.ext.asyncio import AsyncSession

from backend.settings import ServiceType, WorkspaceSettings
from backend.workspace._work import Work
from backend.workspace.purge import PURGE, purge_batch

__all__ = ("BinKeeper",)

_log: Final = structlog.get_logger(__name__)
#: Who purges what nobody has asked to.
_WORKER: Final = ServiceType.WORKSPACE_WORKER.value
_LOOK_S: Final = 60.0
#: Batches of one look: a bin that was never emptied leaves in pieces, and others get their turn.
_BATCHES_MAX: Final = 1_000
#: Batches that cannot be purged are passed over until the next look; with more, something else is wrong.
_FAILED_MAX: Final = 10


class BinKeeper:
    """Purges what has been in the bin for too long; a part of a service, of which any number may run.

    Each batch is a transaction of its own. Two keepers never take the same one: each locks the tree, and
    passes over those that somebody works on.
    """

    def __init__(self, database: Database, settings: WorkspaceSettings | None = None) -> None:
        """*settings* is read from ``WORKSPACE_*`` if left out."""
        self._database = database
        self._keep_days = (settings or load_settings(WorkspaceSettings)).trash_keep_days
        self._stopping = asyncio.Event()

    def __repr__(self) -> str:
        return f"<BinKeeper [keeps {self._keep_days or 'all'} days]>"

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

        What cannot be purged is logged and stays; the others leave all the same.
        """
        purged, failed = 0, list[UUID]()
        while self._keep_days and purged < _BATCHES_MAX and len(failed) < _FAILED_MAX:
            taken = list[UUID]()
            try:
                if self._stopping.is_set() or not await self._purge_one(failed, taken):
                    break
                purged += 1
            except TRANSIENT_ERRORS as error:
                _log.warning("the bin is not emptied for now", reason=str(error))
                break
            except Exception:  # noqa: BLE001 - a janitor must not end the service; the schema may come later
                _log.exception("this stays in the bin until it is mended", nodes=[str(one) for one in taken])
                if not taken:
                    break
                failed += taken[-1:]
        return purged

    async def _purge_one(self, failed: Sequence[UUID], taken: list[UUID]) -> bool:
        async def purge(db: AsyncSession) -> bool:
            # Twice: the first look may be older than the lock that it took; what comes back unchanged is so.
            due, again = [
                await executor_of(db).fetch(PURGE["take_due"], self._keep_days, failed) for _ in range(2)
            ]
            if due != again:
                raise RetryTransaction("the bin has changed meanwhile; look again")
            if not due:
                return False
            node_id: UUID = due[0]["id"]
            taken.append(node_id)
            work = Work(db, Caller(actor=_WORKER, source_service=_WORKER, internal=True))
            [access] = await work.hold_trees(node_id)
            access.require_trashed()
            counts = await purge_batch(work, access, reason=f"in the bin for over {self._keep_days} days")
            _log.info("purged from the bin", node_id=str(node_id), nodes=counts.nodes)
            return True

        # Not another isolation: what is erased must be all that is there by now.
        return await self._database.run_in_transaction(purge, isolation="READ COMMITTED")
