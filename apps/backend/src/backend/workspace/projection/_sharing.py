"""Apply events of grants and share links."""

from datetime import datetime

from shared_types.workspace import Role, WorkspaceEvent, WorkspaceGrant, WorkspaceLink

from backend.workspace.projection._state import NodeEvent, NodeState, handles


@handles(WorkspaceEvent.ACL_SHARED)
def _shared(state: NodeState, event: NodeEvent) -> None:
    user_id = event.payload["user_id"]
    state.grants[user_id] = WorkspaceGrant(
        node_id=event.node_id,
        user_id=user_id,
        role=Role(event.payload["role"]),
        granted_by=event.actor,
        created_at=event.at,
        changed_at=event.at,
    )


@handles(WorkspaceEvent.ACL_ROLE_CHANGED)
def _role_changed(state: NodeState, event: NodeEvent) -> None:
    user_id = event.payload["user_id"]
    update = {"role": Role(event.payload["role"]), "granted_by": event.actor, "changed_at": event.at}
    state.grants[user_id] = state.grants[user_id].model_copy(update=update)


@handles(WorkspaceEvent.ACL_REVOKED)
def _revoked(state: NodeState, event: NodeEvent) -> None:
    del state.grants[event.payload["user_id"]]


@handles(WorkspaceEvent.ACL_LINK_CREATED)
def _link_created(state: NodeState, event: NodeEvent) -> None:
    expires_at = event.payload.get("expires_at")
    link = WorkspaceLink(
        id=event.id("link_id"),
        node_id=event.node_id,
        role=Role(event.payload["role"]),
        has_password=event.payload["has_password"],
        expires_at=datetime.fromisoformat(expires_at) if expires_at else None,
        created_by=event.actor,
        created_at=event.at,
    )
    state.links[link.id] = link


@handles(WorkspaceEvent.ACL_LINK_REVOKED)
def _link_revoked(state: NodeState, event: NodeEvent) -> None:
    del state.links[event.id("link_id")]
