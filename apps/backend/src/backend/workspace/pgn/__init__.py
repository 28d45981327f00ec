"""Imports and exports of PGN files, and the tasks of large ones.

Modules that need the package ``chess`` are imported where they are used, not here.
"""

from backend.workspace.pgn._archive_routes import archive_router
from backend.workspace.pgn._export_file_cleaner import ExportFileCleaner
from backend.workspace.pgn._import_routes import import_router
from backend.workspace.pgn._task_routes import task_router
from backend.workspace.pgn._uploads import PgnUploads
from backend.workspace.pgn._worker import WorkspaceWorker

__all__ = (
    "ExportFileCleaner",
    "PgnUploads",
    "WorkspaceWorker",
    "archive_router",
    "import_router",
    "task_router",
)
