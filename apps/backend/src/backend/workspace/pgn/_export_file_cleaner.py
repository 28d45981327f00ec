"""Delete the files of old exports, but not their tasks."""

from typing import Final

import structlog
from relaybox.db import Database
from relaybox.periodic import SharedJob
from relaybox.settings import load_settings

from backend.settings import WorkspaceSettings
from backend.workspace.pgn._tasks import TASKS_SQL

__all__ = ("ExportFileCleaner",)

_log: Final = structlog.get_logger(__name__)
_INTERVAL_S: Final = 600.0
#: Maximum number of files that one statement deletes. For a file of 50 MiB, PostgreSQL deletes 26,000 rows of
#: TOAST.
_FILES_MAX: Final = 10


class ExportFileCleaner(SharedJob):
    """Deletes the files of exports that are older than ``WORKSPACE_EXPORT_KEEP_H`` hours.

    Several processes may have a cleaner; one of them performs each run.
    """

    def __init__(self, database: Database, settings: WorkspaceSettings | None = None) -> None:
        """*settings*: None to read them from the environment (``WORKSPACE_*``)."""
        super().__init__(
            self.remove_old_files, name="workspace.export-files", interval_s=_INTERVAL_S, database=database
        )
        self._keep_h = (settings or load_settings(WorkspaceSettings)).export_keep_h

    def __repr__(self) -> str:
        return f"<ExportFileCleaner [keeps {self._keep_h:g} h]>"

    async def remove_old_files(self) -> int:
        """Delete old files, ten per transaction; return the number of deleted files.

        Raises:
            DatabaseUnavailable, DatabaseBusy: PostgreSQL cannot be reached or has reached a limit.
        """
        removed = 0
        async with self._database.connection() as connection:
            while not self.stopping:
                files = await connection.fetch(TASKS_SQL["delete_expired_archives"], self._keep_h, _FILES_MAX)
                removed += len(files)
                if len(files) < _FILES_MAX:
                    break
        if removed:
            _log.info("export files removed", files=removed)
        return removed
