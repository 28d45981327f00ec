"""Files of exports are kept for a while, and then go; the export itself stays known."""

import asyncio
from typing import Final

import structlog
from relaybox.db import TRANSIENT_ERRORS, Database
from relaybox.settings import load_settings

from backend.settings import WorkspaceSettings
from backend.workspace.pgn._tasks import TASKS_SQL

__all__ = ("ExportFileCleaner",)

_log: Final = structlog.get_logger(__name__)
_LOOK_S: Final = 600.0
#: Files of one statement: each may have 50 MiB, which are 26,000 rows of TOAST.
_FILES_MAX: Final = 10


class ExportFileCleaner:
    """Drops the files of exports that ended long ago; a part of a service, of which any number may run."""

    def __init__(self, database: Database, settings: WorkspaceSettings | None = None) -> None:
        """*settings* is read from ``WORKSPACE_*`` if left out."""
        self._database = database
        self._keep_h = (settings or load_settings(WorkspaceSettings)).export_keep_h
        self._stopping = asyncio.Event()

    def __repr__(self) -> str:
        return f"<ExportFileCleaner [keeps {self._keep_h:g} h]>"

    async def run(self) -> None:
        """Look now and every ten minutes until :meth:`stop`; PostgreSQL may be away meanwhile."""
        while not self._stopping.is_set():
            try:
                await self.look()
            except TRANSIENT_ERRORS as error:
                _log.warning("files of exports stay for now", reason=str(error))
            except Exception:  # noqa: BLE001 - a janitor must not end the service; the schema may come later
                _log.exception("files of exports stay until this is mended")
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    def stop(self) -> None:
        """End :meth:`run`."""
        self._stopping.set()

    async def look(self) -> int:
        """Remove the files that are due, in transactions of ten; returns how many there were.

        Raises:
            DatabaseUnavailable, DatabaseBusy: PostgreSQL is away, or busy.
        """
        dropped = 0
        async with self._database.connection() as connection:
            while not self._stopping.is_set():
                files = await connection.fetch(TASKS_SQL["delete_expired_archives"], self._keep_h, _FILES_MAX)
                dropped += len(files)
                if len(files) < _FILES_MAX:
                    break
        if dropped:
            _log.info("files of exports removed", files=dropped)
        return dropped
