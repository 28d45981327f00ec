"""Workspace: chess studies in a tree of nodes, every write a command with its events."""

from backend.workspace._rebuild import NodeDifference, WorkspaceReport, rebuild_workspace
from backend.workspace.answers import WORKSPACE_ANSWERS

__all__ = ("WORKSPACE_ANSWERS", "NodeDifference", "WorkspaceReport", "rebuild_workspace")
