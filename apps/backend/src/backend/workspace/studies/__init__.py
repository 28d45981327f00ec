"""Studies: chapters, their moves, versions and export.

What needs the package ``chess`` is imported where it is used, and not by this door.
"""

from backend.workspace.studies._chapters import CHAPTERS_SQL, fetch_chapter
from backend.workspace.studies._routes import add_study_routes

__all__ = (
    "CHAPTERS_SQL",
    "add_study_routes",
    "fetch_chapter",
)
