"""What happened to a node: its activity, and the live stream."""

from backend.workspace.activity._routes import add_activity_routes

__all__ = ("add_activity_routes",)
