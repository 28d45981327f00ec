"""Full-text search over nodes and chapters."""

from backend.workspace.search._routes import search_router

__all__ = ("search_router",)
