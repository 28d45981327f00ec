"""Sharing: grants to users, and share links."""

from backend.workspace.sharing._link_opener import LinkOpener
from backend.workspace.sharing._link_routes import link_router
from backend.workspace.sharing._passwords import PasswordHasher
from backend.workspace.sharing._routes import sharing_router

__all__ = ("LinkOpener", "PasswordHasher", "link_router", "sharing_router")
