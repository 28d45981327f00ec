"""Commands on grants, which give a user a role on a node and its subtree."""

from typing import Final
from uuid import UUID

from relaybox.db import load_queries
from shared_types.events import EventTarget
from shared_types.workspace import Role, WorkspaceEvent, WorkspaceGrant
from shared_types.workspace_sharing_api import ChangeRole, ShareNode

from backend.workspace.access import Access
from backend.workspace.core import ACCESS_SQL, CommandTransaction, ancestors_from_rows, lock_node
from backend.workspace.errors import (
    AlreadyShared,
    GrantRefused,
    ResourceNotFound,
    RoleMissing,
    ShareLimitReached,
)

__all__ = ("GRANTS_MAX", "SHARING_SQL", "change_role", "check_change", "revoke_grant", "share_node")

SHARING_SQL: Final = load_queries(__package__ or "backend.workspace.sharing", "sharing.sql")
#: Maximum number of grants on one node: enough for the members of a club. More users need a share link.
GRANTS_MAX: Final = 500


async def share_node(tx: CommandTransaction, node_id: UUID, request: ShareNode) -> WorkspaceGrant:
    """Grant a role to a user who has no grant on the node itself.

    Raises:
        NodeNotFound: The node does not exist, or the sender may not read it.
        RoleMissing: The sender is not an admin, or grants the role admin without being the owner.
        GrantRefused: The grant is for the sender, or for the owner.
        AlreadyShared: The user has a grant on the node.
        ShareLimitReached: The node has the maximum number of grants.
    """
    access = await lock_node(tx, node_id, Role.ADMIN)
    _check_other(tx, access, request.user_id)
    if await _lock_grant(tx, node_id, request.user_id) is not None:
        raise AlreadyShared
    await _check_change(tx, access, request.user_id, request.role)
    [row] = await tx.executor.fetch(SHARING_SQL["count_grants"], node_id)
    if row["grants"] >= GRANTS_MAX:
        raise ShareLimitReached("grants", GRANTS_MAX)
    payload = {"user_id": request.user_id, "role": request.role}
    target = (EventTarget.SHARE, request.user_id)
    await tx.emit(WorkspaceEvent.ACL_SHARED, node_id, payload, target=target)
    await tx.record("ShareNode", node_id, payload)
    return tx.state(node_id).grants[request.user_id]


async def change_role(
    tx: CommandTransaction, node_id: UUID, user_id: str, request: ChangeRole
) -> WorkspaceGrant:
    """Change the role of a user's grant on the node itself; for an equal role record no event.

    Raises:
        NodeNotFound: The node does not exist, or the sender may not read it.
        RoleMissing: The sender is not an admin, or grants or removes the role admin without being the owner.
        GrantRefused: The grant is for the sender, or for the owner.
        ResourceNotFound: The user has no grant on the node itself; an inherited role is changed by a new
            grant.
    """
    access = await lock_node(tx, node_id, Role.ADMIN)
    _check_other(tx, access, user_id)
    grant = await _lock_grant(tx, node_id, user_id)
    if grant is None:
        raise ResourceNotFound("grant")
    await _check_change(tx, access, user_id, request.role)
    if grant.role is not request.role:
        payload = {"user_id": user_id, "role": request.role}
        await tx.emit(WorkspaceEvent.ACL_ROLE_CHANGED, node_id, payload, target=(EventTarget.SHARE, user_id))
        await tx.record("ChangeRole", node_id, payload)
    return tx.state(node_id).grants[user_id]


async def revoke_grant(tx: CommandTransaction, node_id: UUID, user_id: str) -> None:
    """Revoke a user's grant on the node itself; each user may revoke their own grant.

    Raises:
        NodeNotFound: The sender may not read the node.
        RoleMissing: The grant is another user's, and the sender is not an admin, or is not the owner although
            the revocation removes or creates an admin.
        GrantRefused: The sender revokes their own grant, and would inherit a higher role without it.
        ResourceNotFound: The user has no grant on the node itself.
    """
    own = user_id == tx.caller.actor
    access = await lock_node(tx, node_id, Role.VIEWER if own else Role.ADMIN)
    if await _lock_grant(tx, node_id, user_id) is None:
        raise ResourceNotFound("grant")
    await _check_change(tx, access, user_id, None)
    payload = {"user_id": user_id}
    await tx.emit(WorkspaceEvent.ACL_REVOKED, node_id, payload, target=(EventTarget.SHARE, user_id))
    await tx.record("RevokeGrant", node_id, payload)


def check_change(actor: Role, *, own: bool, before: Role | None, after: Role | None) -> None:
    """Require that the sender of a command may change a user's role on a node from *before* to *after*.

    Only the owner may create admins and remove other admins: otherwise one admin could remove the others.
    Inherited grants count too. A lower role that is granted on the node itself replaces an inherited role
    admin: such a grant removes an admin, and its revocation creates one.

    Args:
        actor: The role of the sender.
        own: Whether the sender changes their own role.
        before: The role of the user before the change; None for no role.
        after: The role of the user after the change; None for no role.

    Raises:
        RoleMissing: The change makes another user an admin or ends this role, and the sender is not the
            owner.
        GrantRefused: The sender changes their own role and would have a higher role than before.
    """
    if actor is Role.OWNER:
        return
    if own:
        if (after.rank if after else -1) > (before.rank if before else -1):
            raise GrantRefused(
                "without this grant you would inherit a higher role; ask an admin of the node to revoke it"
            )
        return
    if before is not after and Role.ADMIN in (before, after):
        raise RoleMissing(Role.OWNER)


def _check_other(tx: CommandTransaction, access: Access, user_id: str) -> None:
    if user_id == tx.caller.actor:
        raise GrantRefused("you cannot grant a role to yourself; ask another admin")
    if user_id == access.owner:
        raise GrantRefused("the owner of the tree has all rights already; choose another user")


async def _lock_grant(tx: CommandTransaction, node_id: UUID, user_id: str) -> WorkspaceGrant | None:
    rows = await tx.executor.fetch(SHARING_SQL["grant"], node_id, user_id)
    if not rows:
        return None
    grant = WorkspaceGrant.model_validate_json(rows[0]["row"])
    tx.load_rows(node_id, "grants", {user_id: grant})
    return grant


async def _check_change(tx: CommandTransaction, access: Access, user_id: str, role: Role | None) -> None:
    """Require that the sender may change the grant of *user_id* on the node to *role*; None: revoke it."""
    rows = await tx.executor.fetch(ACCESS_SQL["ancestors"], access.node.id, user_id, None)
    here, *above = [one.granted for one in ancestors_from_rows(rows)]
    inherited = next((one for one in above if one), None)
    assert access.role is not None, "a sender without access was refused before"
    own = user_id == tx.caller.actor
    check_change(access.role, own=own, before=here or inherited, after=role or inherited)
