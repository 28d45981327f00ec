"""All routes of the workspace, under ``/api/v1`` (workspace.md, Routes)."""

from fastapi import APIRouter
from relaybox.http import Backbone
from relaybox.settings import JwtSettings

from backend.workspace._edge import Edge
from backend.workspace._tickets import Tickets
from backend.workspace.activity_routes import add_activity_routes
from backend.workspace.archive_routes import add_archive_routes
from backend.workspace.bin_routes import add_bin_routes
from backend.workspace.discussion_routes import add_discussion_routes
from backend.workspace.import_routes import add_import_routes
from backend.workspace.link_routes import add_link_routes
from backend.workspace.node_routes import add_node_routes
from backend.workspace.purge_routes import add_purge_routes
from backend.workspace.reply_routes import add_reply_routes
from backend.workspace.search_routes import add_search_routes
from backend.workspace.sharing_routes import add_sharing_routes
from backend.workspace.study_routes import add_study_routes
from backend.workspace.task_routes import add_task_routes

__all__ = ("workspace_router",)


def workspace_router(backbone: Backbone, jwt: JwtSettings) -> APIRouter:
    """Every route of the workspace; links that were opened are signed as *jwt* says."""
    router, edge = APIRouter(tags=["Workspace"]), Edge(backbone, Tickets(jwt))
    add_node_routes(router, edge)
    add_bin_routes(router, edge)
    add_purge_routes(router, edge)
    add_study_routes(router, edge)
    add_sharing_routes(router, edge)
    add_link_routes(router, edge)
    add_import_routes(router, edge)
    add_archive_routes(router, edge)
    add_task_routes(router, edge)
    add_discussion_routes(router, edge)
    add_reply_routes(router, edge)
    add_activity_routes(router, edge)
    add_search_routes(router, edge)
    return router
