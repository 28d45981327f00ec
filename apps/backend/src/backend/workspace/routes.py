"""All routes of the workspace, under ``/api/v1`` (workspace.md, Routes)."""

from fastapi import APIRouter
from relaybox.http import Backbone
from relaybox.settings import JwtSettings

from backend.workspace.activity import add_activity_routes
from backend.workspace.discussions import add_discussion_routes, add_reply_routes
from backend.workspace.edge import Edge, Tickets
from backend.workspace.nodes import add_node_routes
from backend.workspace.pgn import add_archive_routes, add_import_routes, add_task_routes
from backend.workspace.search import add_search_routes
from backend.workspace.sharing import PasswordThreads, add_link_routes, add_sharing_routes
from backend.workspace.studies import add_study_routes
from backend.workspace.trash import add_bin_routes, add_purge_routes

__all__ = ("workspace_router",)


def workspace_router(backbone: Backbone, jwt: JwtSettings) -> APIRouter:
    """Every route of the workspace; links that were opened are signed as *jwt* says."""
    edge, passwords = Edge(backbone, Tickets(jwt)), PasswordThreads()
    # The application that includes the router runs its lifespan too.
    router = APIRouter(tags=["Workspace"], lifespan=passwords.lifespan)
    add_node_routes(router, edge)
    add_bin_routes(router, edge)
    add_purge_routes(router, edge)
    add_study_routes(router, edge)
    add_sharing_routes(router, edge)
    add_link_routes(router, edge, passwords)
    add_import_routes(router, edge)
    add_archive_routes(router, edge)
    add_task_routes(router, edge)
    add_discussion_routes(router, edge)
    add_reply_routes(router, edge)
    add_activity_routes(router, edge)
    add_search_routes(router, edge)
    return router
