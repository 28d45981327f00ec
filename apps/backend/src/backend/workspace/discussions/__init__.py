"""Discussions: threads, replies, reactions, mentions."""

from backend.workspace.discussions._reply_routes import reply_router
from backend.workspace.discussions._routes import discussion_router

__all__ = ("discussion_router", "reply_router")
