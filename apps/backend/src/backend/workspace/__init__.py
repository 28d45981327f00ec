"""Workspace: chess studies in a tree of nodes, every write a command with its events."""

from backend.workspace._errors import WORKSPACE_ANSWERS

__all__ = ("WORKSPACE_ANSWERS",)
