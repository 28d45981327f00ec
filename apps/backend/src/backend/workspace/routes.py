"""All routes of the workspace, under ``/api/v1`` (workspace.md, Routes)."""

from fastapi import APIRouter
from relaybox.http import Backbone

from backend.workspace._edge import Edge
from backend.workspace.bin_routes import add_bin_routes
from backend.workspace.node_routes import add_node_routes
from backend.workspace.study_routes import add_study_routes

__all__ = ("workspace_router",)


def workspace_router(backbone: Backbone) -> APIRouter:
    """Every route of the workspace."""
    router, edge = APIRouter(tags=["Workspace"]), Edge(backbone)
    add_node_routes(router, edge)
    add_bin_routes(router, edge)
    add_study_routes(router, edge)
    return router
