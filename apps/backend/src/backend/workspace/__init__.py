"""Workspace: chess studies in a tree of nodes, every write a command with its events."""

from backend.workspace._rebuild import NodeDifference, WorkspaceReport, rebuild_workspace
from backend.workspace.responses import WORKSPACE_ERROR_RESPONSES

__all__ = ("WORKSPACE_ERROR_RESPONSES", "NodeDifference", "WorkspaceReport", "rebuild_workspace")
