"""Sharing: roles by name, and links."""

from backend.workspace.sharing._link_routes import add_link_routes
from backend.workspace.sharing._passwords import PasswordHasher
from backend.workspace.sharing._routes import add_sharing_routes

__all__ = (
    "PasswordHasher",
    "add_link_routes",
    "add_sharing_routes",
)
