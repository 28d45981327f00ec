"""Commands on share links; a link gives a role on a node to every requester who has its token."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from relaybox.db import load_queries
from relaybox.errors import Detail
from relaybox.http import ValidationFailed
from shared_types.events import EventTarget
from shared_types.workspace import Role, WorkspaceEvent, WorkspaceLink
from shared_types.workspace_sharing_api import CreateLink

from backend.workspace.core import CommandTransaction, lock_node
from backend.workspace.errors import ResourceNotFound, ShareLimitReached, as_resource_not_found

__all__ = ("LINKS_MAX", "LINKS_SQL", "create_link", "hash_token", "revoke_link")

LINKS_SQL: Final = load_queries(__package__ or "backend.workspace.sharing", "links.sql")
#: Maximum number of links of one node, including expired links that are not revoked.
LINKS_MAX: Final = 50
#: Random bytes of a token. 256 bits cannot be guessed, so the stored hash needs no salt.
_TOKEN_BYTES: Final = 32
_EXPIRY_MAX: Final = timedelta(days=3_653)


async def create_link(
    tx: CommandTransaction, node_id: UUID, request: CreateLink, password_hash: str | None
) -> tuple[WorkspaceLink, str]:
    """Create a link to a node; return the link and its token, which is not stored.

    Only the hashes of token and password are stored, in ``workspace_link_secrets``; events and commands
    contain neither.

    Raises:
        NodeNotFound: The node does not exist, or the sender may not read it.
        RoleMissing: The sender is not an admin of the node.
        ValidationFailed: The expiry is in the past, or more than ten years ahead.
        ShareLimitReached: The node already has the maximum number of links.
    """
    await lock_node(tx, node_id, Role.ADMIN)
    expires_at = _check_expiry(request.expires_at, await tx.now())
    [row] = await tx.executor.fetch(LINKS_SQL["count_links"], node_id)
    if row["links"] >= LINKS_MAX:
        raise ShareLimitReached("links", LINKS_MAX)
    link_id, token = uuid4(), secrets.token_urlsafe(_TOKEN_BYTES)
    payload: dict[str, Any] = {
        "link_id": str(link_id),
        "role": request.role,
        "has_password": request.password is not None,
        "expires_at": expires_at.isoformat() if expires_at else None,
    }
    await tx.emit(WorkspaceEvent.ACL_LINK_CREATED, node_id, payload, target=(EventTarget.SHARE, link_id))
    await tx.record("CreateLink", node_id, payload)
    await tx.executor.fetch(
        LINKS_SQL["insert_link_secret"], link_id, node_id, hash_token(token), password_hash
    )
    return tx.state(node_id).links[link_id], token


async def revoke_link(tx: CommandTransaction, link_id: UUID) -> None:
    """Revoke a link; share tokens that were issued for the link are no longer valid either.

    Raises:
        ResourceNotFound: The link does not exist, or the sender may not read its node.
        RoleMissing: The sender is not an admin of the node.
    """
    node_id = (await _link(tx, link_id)).node_id
    with as_resource_not_found("link"):
        await lock_node(tx, node_id, Role.ADMIN)
    # Read the link again under the lock: another request may have revoked it.
    tx.load_rows(node_id, "links", {link_id: await _link(tx, link_id)})
    payload = {"link_id": str(link_id)}
    await tx.emit(WorkspaceEvent.ACL_LINK_REVOKED, node_id, payload, target=(EventTarget.SHARE, link_id))
    await tx.record("RevokeLink", node_id, payload)
    await tx.executor.fetch(LINKS_SQL["delete_link_secret"], link_id)


def hash_token(token: str) -> bytes:
    """Return the SHA-256 of *token*, the form in which tokens are stored and searched."""
    return hashlib.sha256(token.encode()).digest()


async def _link(tx: CommandTransaction, link_id: UUID) -> WorkspaceLink:
    rows = await tx.executor.fetch(LINKS_SQL["link"], link_id)
    if not rows:
        raise ResourceNotFound("link")
    return WorkspaceLink.model_validate_json(rows[0]["row"])


def _check_expiry(expires_at: datetime | None, now: datetime) -> datetime | None:
    if expires_at is None:
        return None
    if not now < expires_at <= now + _EXPIRY_MAX:
        message = "must be in the future, and at most ten years ahead"
        raise ValidationFailed([Detail(field="body.expires_at", message=message)])
    return expires_at.astimezone(UTC)
