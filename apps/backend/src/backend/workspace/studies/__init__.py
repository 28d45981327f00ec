"""Studies: chapters, their moves, versions, and export as PGN.

Modules that need the package ``chess`` are imported where they are used, not here.
"""

from backend.workspace.studies._chapters import CHAPTERS_SQL, fetch_chapter
from backend.workspace.studies._routes import study_router

__all__ = (
    "CHAPTERS_SQL",
    "fetch_chapter",
    "study_router",
)
