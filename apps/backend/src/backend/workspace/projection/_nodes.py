"""Apply events of nodes: creation, changes, moves, trash, restore, purge."""

from uuid import UUID

from shared_types.workspace import NodeKind, Visibility, WorkspaceEvent, WorkspaceNode

from backend.workspace.projection._state import NodeEvent, NodeState, handles

#: The fields that a restore clears.
_NOT_TRASHED = dict.fromkeys(
    ("trashed_at", "trashed_by", "trash_reason", "trash_batch_id", "trash_count", "trash_path")
)


@handles(WorkspaceEvent.NODE_CREATED, WorkspaceEvent.STUDY_CREATED)
def _created(state: NodeState, event: NodeEvent) -> None:
    payload = event.payload
    state.node = WorkspaceNode(
        id=event.node_id,
        kind=NodeKind(payload["kind"]),
        parent_id=_id(payload["parent_id"]),
        owner_id=payload["owner_id"],
        title=payload["title"],
        description=payload.get("description", ""),
        position=payload["position"],
        layout=payload.get("layout"),
        visibility=_visibility(payload.get("visibility")),
        created_by=event.actor,
        created_at=event.at,
        changed_at=event.at,
    )


@handles(WorkspaceEvent.NODE_UPDATED)
def _updated(state: NodeState, event: NodeEvent) -> None:
    fields = {name: event.payload[name] for name in ("title", "description") if name in event.payload}
    if "visibility" in event.payload:
        fields["visibility"] = _visibility(event.payload["visibility"])
    state.change_node(event, **fields)


@handles(WorkspaceEvent.LAYOUT_UPDATED)
def _layout_updated(state: NodeState, event: NodeEvent) -> None:
    state.change_node(event, layout=event.payload["layout"])


@handles(WorkspaceEvent.NODE_MOVED)
def _moved(state: NodeState, event: NodeEvent) -> None:
    state.change_node(
        event,
        parent_id=_id(event.payload["parent_id"]),
        owner_id=event.payload["owner_id"],
        position=event.payload["position"],
        visibility=_visibility(event.payload["visibility"]),
    )


@handles(WorkspaceEvent.NODE_SOFT_DELETED)
def _trashed(state: NodeState, event: NodeEvent) -> None:
    state.change_node(
        event,
        trashed_at=event.at,
        trashed_by=event.actor,
        trash_reason=event.payload.get("reason"),
        trash_batch_id=event.id("batch_id"),
        trash_count=event.payload["count"],
        trash_path=[UUID(one) for one in event.payload["path"]],
    )


@handles(WorkspaceEvent.NODE_RESTORED)
def _restored(state: NodeState, event: NodeEvent) -> None:
    state.change_node(
        event,
        **_NOT_TRASHED,
        parent_id=_id(event.payload["parent_id"]),
        owner_id=event.payload["owner_id"],
        position=event.payload["position"],
        visibility=_visibility(event.payload["visibility"]),
    )


@handles(WorkspaceEvent.NODE_PERMANENTLY_DELETED)
def _purged(state: NodeState, _event: NodeEvent) -> None:
    state.node = None
    for rows in (state.chapters, state.versions, state.threads, state.replies, state.grants, state.links):
        rows.clear()


def _id(text: str | None) -> UUID | None:
    return UUID(text) if text else None


def _visibility(text: str | None) -> Visibility | None:
    return Visibility(text) if text else None
