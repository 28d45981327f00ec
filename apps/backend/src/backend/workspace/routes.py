"""All routes of the workspace, under ``/api/v1`` (workspace.md, Routes)."""

from fastapi import APIRouter
from relaybox.http import Backbone
from relaybox.settings import JwtSettings

from backend.workspace.activity import add_activity_routes
from backend.workspace.discussions import add_discussion_routes, add_reply_routes
from backend.workspace.http import RouteDependencies, ShareTokens
from backend.workspace.nodes import add_node_routes
from backend.workspace.pgn import add_archive_routes, add_import_routes, add_task_routes
from backend.workspace.search import add_search_routes
from backend.workspace.sharing import PasswordHasher, add_link_routes, add_sharing_routes
from backend.workspace.studies import add_study_routes
from backend.workspace.trash import add_bin_routes, add_purge_routes

__all__ = ("workspace_router",)


def workspace_router(backbone: Backbone, jwt: JwtSettings) -> APIRouter:
    """Every route of the workspace; links that were opened are signed as *jwt* says."""
    deps, passwords = RouteDependencies(backbone, ShareTokens(jwt)), PasswordHasher()
    # The application that includes the router runs its lifespan too.
    router = APIRouter(tags=["Workspace"], lifespan=passwords.lifespan)
    add_node_routes(router, deps)
    add_bin_routes(router, deps)
    add_purge_routes(router, deps)
    add_study_routes(router, deps)
    add_sharing_routes(router, deps)
    add_link_routes(router, deps, passwords)
    add_import_routes(router, deps)
    add_archive_routes(router, deps)
    add_task_routes(router, deps)
    add_discussion_routes(router, deps)
    add_reply_routes(router, deps)
    add_activity_routes(router, deps)
    add_search_routes(router, deps)
    return router
