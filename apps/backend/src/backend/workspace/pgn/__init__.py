"""PGN files in and out, and the tasks of those that are large.

What needs the package ``chess`` is imported where it is used, and not by this door.
"""

from backend.workspace.pgn._archive_routes import add_archive_routes
from backend.workspace.pgn._export_file_cleaner import ExportFileCleaner
from backend.workspace.pgn._import_routes import add_import_routes
from backend.workspace.pgn._task_routes import add_task_routes
from backend.workspace.pgn._worker import WorkspaceWorker

__all__ = (
    "ExportFileCleaner",
    "WorkspaceWorker",
    "add_archive_routes",
    "add_import_routes",
    "add_task_routes",
)
