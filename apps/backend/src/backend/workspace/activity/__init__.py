"""The events of a node for its readers: the activity list and the live stream."""

from backend.workspace.activity._routes import activity_router

__all__ = ("activity_router",)
