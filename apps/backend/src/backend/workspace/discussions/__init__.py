"""Discussions: threads, replies, reactions, mentions."""

from backend.workspace.discussions._reply_routes import add_reply_routes
from backend.workspace.discussions._routes import add_discussion_routes

__all__ = (
    "add_discussion_routes",
    "add_reply_routes",
)
