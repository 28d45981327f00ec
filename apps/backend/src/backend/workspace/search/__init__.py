"""Finding nodes by their words."""

from backend.workspace.search._routes import add_search_routes

__all__ = ("add_search_routes",)
