"""Show the events of a node to users who may read it: the activity list and the live stream."""

from backend.workspace.activity._routes import activity_router

__all__ = ("activity_router",)
