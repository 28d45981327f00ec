"""All routes of the workspace, under ``/api/v1`` (docs/reference/workspace.md)."""

from fastapi import APIRouter, Depends
from relaybox.http import Backbone
from relaybox.outbox import OutboxSettings
from relaybox.settings import JwtSettings, load_settings

from backend.settings import WorkspaceSettings
from backend.workspace.activity import activity_router
from backend.workspace.discussions import discussion_router, reply_router
from backend.workspace.http import RouteDependencies, ShareTokens
from backend.workspace.nodes import node_router
from backend.workspace.pgn import PgnUploads, archive_router, import_router, task_router
from backend.workspace.search import search_router
from backend.workspace.sharing import LinkOpener, PasswordHasher, link_router, sharing_router
from backend.workspace.studies import study_router
from backend.workspace.trash import trash_router

__all__ = ("workspace_router",)


def workspace_router(backbone: Backbone, jwt: JwtSettings) -> APIRouter:
    """Return a router with all routes of the workspace, for one application.

    Args:
        backbone: The database, the event streams and the metrics of the application.
        jwt: The settings of bearer tokens; share tokens are signed with the same secret.
    """
    dependencies = RouteDependencies(backbone, ShareTokens(jwt), load_settings(WorkspaceSettings))
    passwords = PasswordHasher()
    links = LinkOpener(dependencies.database, dependencies.share_tokens, passwords)
    uploads = PgnUploads(load_settings(OutboxSettings).message_bytes_max)
    # FastAPI runs the lifespan of an included router with that of the application.
    router = APIRouter(
        tags=["Workspace"], lifespan=passwords.lifespan, dependencies=[Depends(dependencies.provide)]
    )
    router.include_router(node_router)
    router.include_router(trash_router)
    router.include_router(study_router)
    router.include_router(sharing_router)
    router.include_router(link_router, dependencies=[Depends(links.provide)])
    router.include_router(import_router, dependencies=[Depends(uploads.provide)])
    router.include_router(archive_router)
    router.include_router(task_router)
    router.include_router(discussion_router)
    router.include_router(reply_router)
    router.include_router(activity_router)
    router.include_router(search_router)
    return router
