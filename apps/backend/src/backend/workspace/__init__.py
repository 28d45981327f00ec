"""Workspace: chess studies in a tree of nodes. Each write is a command that records events."""

from backend.workspace._rebuild import NodeProjection
from backend.workspace.responses import WORKSPACE_ERROR_RESPONSES

__all__ = ("WORKSPACE_ERROR_RESPONSES", "NodeProjection")
