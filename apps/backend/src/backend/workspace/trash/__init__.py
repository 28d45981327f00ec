"""The recycle bin: trash, restore and purge."""

from backend.workspace.trash._routes import trash_router
from backend.workspace.trash._trash_purger import TrashPurger

__all__ = ("TrashPurger", "trash_router")
