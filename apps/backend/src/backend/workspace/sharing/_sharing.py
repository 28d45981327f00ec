"""Grants: who may do what on a node and below it, and who may say so."""

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
#: Of one node. A club's members; more is a folder for everybody, or a link.
GRANTS_MAX: Final = 500


async def share_node(tx: CommandTransaction, node_id: UUID, request: ShareNode) -> WorkspaceGrant:
    """Grant a role to somebody who has none on this very node.

    Raises:
        NodeNotFound, RoleMissing: who asks is no admin; only the owner makes admins.
        GrantRefused: it is for oneself, or for the owner.
        AlreadyShared: there is a grant already.
        ShareLimitReached: the node has too many.
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
    """Change what is granted to somebody on this very node; the role they have is no change.

    Raises:
        NodeNotFound, RoleMissing: who asks is no admin; only the owner makes admins, or takes it from them.
        GrantRefused: it is one's own, or the owner's.
        ResourceNotFound: nothing is granted to them here; a role that they inherit is granted anew, by POST.
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
    """Take away what is granted to somebody on this very node; one's own may always go: that is to leave.

    Raises:
        NodeNotFound: who asks may not read it.
        RoleMissing: it is somebody else's, and who asks is no admin, or no owner where it is an admin's.
        GrantRefused: it is one's own, and one would have more without it.
        ResourceNotFound: nothing is granted to them here.
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
    """Let *actor* change what somebody may do from *before* to *after*, inherited or not; null for nothing.

    Admins are the owner's to make and unmake: else one of them could take the place from the others. As
    the nearest grant counts, a lower one further down unmakes one too, and to revoke that makes one again.

    Raises:
        RoleMissing: one of the two is an admin's role.
        GrantRefused: one would give oneself more.
    """
    if actor is Role.OWNER:
        return
    if own:
        if (after.rank if after else -1) > (before.rank if before else -1):
            raise GrantRefused("without this grant you would have more; an admin of the node may revoke it")
        return
    if before is not after and Role.ADMIN in (before, after):
        raise RoleMissing(Role.OWNER)


def _check_other(tx: CommandTransaction, access: Access, user_id: str) -> None:
    if user_id == tx.caller.actor:
        raise GrantRefused("nobody grants a role to themselves; another admin does")
    if user_id == access.owner:
        raise GrantRefused("the owner of the tree may do everything already")


async def _lock_grant(tx: CommandTransaction, node_id: UUID, user_id: str) -> WorkspaceGrant | None:
    rows = await tx.executor.fetch(SHARING_SQL["grant"], node_id, user_id)
    if not rows:
        return None
    grant = WorkspaceGrant.model_validate_json(rows[0]["row"])
    tx.load_rows(node_id, "grants", {user_id: grant})
    return grant


async def _check_change(tx: CommandTransaction, access: Access, user_id: str, role: Role | None) -> None:
    """Check a change of the grant that *user_id* has on the node itself to *role*; null for none."""
    rows = await tx.executor.fetch(ACCESS_SQL["ancestors"], access.node.id, user_id, None)
    here, *above = [one.granted for one in ancestors_from_rows(rows)]
    inherited = next((one for one in above if one), None)
    assert access.role is not None, "who may not even read was refused"
    own = user_id == tx.caller.actor
    check_change(access.role, own=own, before=here or inherited, after=role or inherited)
