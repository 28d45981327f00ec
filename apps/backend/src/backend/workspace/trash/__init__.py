"""The recycle bin: to it, back from it, out of it for good."""

from backend.workspace.trash._purge_routes import add_purge_routes
from backend.workspace.trash._routes import add_bin_routes
from backend.workspace.trash._trash_purger import TrashPurger

__all__ = (
    "TrashPurger",
    "add_bin_routes",
    "add_purge_routes",
)
