"""Nodes: creating, changing and moving them."""

from typing import Any, Final
from uuid import UUID, uuid4

from relaybox.db import RetryTransaction, load_queries
from relaybox_types.envelope import EventEnvelope
from shared_types.workspace import NodeKind, Role, Visibility, WorkspaceEvent
from shared_types.workspace_api import CreateNode, MoveNode, UpdateNode

from backend.workspace.access import LEVELS_MAX, Access, access_of
from backend.workspace.core import (
    CommandTransaction,
    IfMatch,
    lock_in_place,
    lock_node,
    lock_parent,
    lock_trees,
)
from backend.workspace.errors import ParentInvalid, TitleTaken, TreeCycle, TreeTooDeep

__all__ = (
    "NODES_SQL",
    "add_node",
    "check_placement",
    "check_title",
    "create_node",
    "move_node",
    "next_position",
    "update_node",
)

NODES_SQL: Final = load_queries(__package__ or "backend.workspace.nodes", "nodes.sql")


async def create_node(tx: CommandTransaction, request: CreateNode) -> UUID:
    """Make a node below a parent, or a root of who asks; its id.

    Raises:
        NodeNotFound, RoleMissing: the parent is not for who asks; for a visibility of its own, no admin.
        TreeRefused: it cannot stand there.
        TitleTaken: another study of the folder has the title.
    """
    parent = None if request.parent_id is None else await lock_parent(tx, request.parent_id, Role.EDITOR)
    node_id = await add_node(tx, request, parent)
    await tx.record("CreateNode", node_id, request.model_dump(mode="json"))
    return node_id


async def add_node(
    tx: CommandTransaction,
    request: CreateNode,
    parent: Access | None,
    *,
    node_id: UUID | None = None,
    cause: EventEnvelope | None = None,
) -> UUID:
    """Say that a node is there, below a held *parent* or as a root; what it lacks is recorded by who asked.

    *node_id* is its id, if somebody was told of it before; *cause* as for :meth:`CommandTransaction.say`.

    Raises:
        RoleMissing, TreeRefused, TitleTaken: as for :func:`create_node`.
    """
    node_id = node_id or uuid4()
    if parent is not None:
        if request.visibility is not None:
            parent.require(Role.ADMIN)
        _check_parent(request.kind, parent)
        if len(parent.chain) >= LEVELS_MAX:
            raise TreeTooDeep(LEVELS_MAX)
        if request.kind is NodeKind.STUDY:
            await check_title(tx, parent.node.id, request.title)
    visibility = request.visibility or (Visibility.SHARED if parent is None else None)
    payload: dict[str, Any] = {
        "kind": request.kind,
        "parent_id": None if parent is None else str(parent.node.id),
        "owner_id": tx.caller.actor if parent is None else parent.owner,
        "title": request.title,
        "description": request.description,
        "position": await _position(tx, parent, request.position),
        "visibility": visibility,
    }
    if request.layout is not None:
        payload["layout"] = request.layout.model_dump(mode="json", exclude_none=True)
    study = request.kind is NodeKind.STUDY
    type_ = WorkspaceEvent.STUDY_CREATED if study else WorkspaceEvent.NODE_CREATED
    await tx.emit(type_, node_id, payload, cause=cause)
    return node_id


async def update_node(tx: CommandTransaction, node_id: UUID, request: UpdateNode, match: IfMatch) -> None:
    """Give a node what *request* names; its version is the one that *match* allows.

    Raises:
        NodeNotFound, RoleMissing: who asks is no editor; only an admin changes the visibility.
        VersionStale: it has changed since.
        TitleTaken: another study of the folder has the title.
        ParentInvalid: a root has nothing to inherit its visibility from.
    """
    given = request.model_dump(mode="json", include=request.model_fields_set)
    layout = given.pop("layout", None)
    given = {name: value for name, value in given.items() if value is not None or name == "visibility"}
    access = await _lock_with_folder(tx, node_id, titled="title" in given)
    match.check(tx.node(node_id).version)
    if "visibility" in given:
        access.require(Role.ADMIN)
        if given["visibility"] is None and access.node.parent_id is None:
            raise ParentInvalid("a root inherits no visibility; choose private, shared or public")
    if request.title and access.node.kind is NodeKind.STUDY and access.node.parent_id is not None:
        await check_title(tx, access.node.parent_id, request.title, other_than=node_id)
    if given:
        await tx.emit(WorkspaceEvent.NODE_UPDATED, node_id, given)
    if layout is not None:
        kept = {name: value for name, value in layout.items() if value is not None}
        await tx.emit(WorkspaceEvent.LAYOUT_UPDATED, node_id, {"layout": kept})
    await tx.record("UpdateNode", node_id, request.model_dump(mode="json", include=request.model_fields_set))


async def _lock_with_folder(tx: CommandTransaction, node_id: UUID, *, titled: bool) -> Access:
    """Hold a node, and for a new title its folder too, which keeps others from taking the title meanwhile."""
    if not titled:
        return await lock_node(tx, node_id, Role.EDITOR)
    parent_id = (await tx.access(node_id)).node.parent_id
    access = await lock_in_place(tx, node_id, *([parent_id] if parent_id else []))
    if access.node.parent_id != parent_id:
        raise RetryTransaction(f"node {node_id} was moved meanwhile; try again")
    access.require(Role.EDITOR)
    return access


async def move_node(tx: CommandTransaction, node_id: UUID, request: MoveNode, match: IfMatch) -> None:
    """Put a node below another parent, whole: one row changes, however much is below it.

    Both trees are held, which is what keeps two moves that race from making a cycle.

    Raises:
        NodeNotFound, RoleMissing: who asks is no editor of both parents; only an admin changes what it
            inherits; only the owner makes a root, or gives a node to another owner's tree.
        VersionStale: it has changed since.
        TreeRefused: it cannot stand there.
        TitleTaken: another study of the folder has the title.
    """
    wanted = [node_id, *([request.parent_id] if request.parent_id else [])]
    access, *parents = await lock_trees(tx, *wanted)
    parent = parents[0] if parents else None
    _require_removal(access)
    _require_insertion(access, parent)
    match.check(tx.node(node_id).version)
    if parent is not None:
        await check_placement(tx, access, parent)
    node = tx.node(node_id)
    payload = {
        "parent_id": None if parent is None else str(parent.node.id),
        "former_parent_id": str(node.parent_id) if node.parent_id else None,
        "owner_id": access.owner if parent is None else parent.owner,
        "position": await _position(tx, parent, request.position),
        # A root has nothing to inherit it from.
        "visibility": node.visibility or (access.visibility if parent is None else None),
    }
    await tx.emit(WorkspaceEvent.NODE_MOVED, node_id, payload)
    await tx.record("MoveNode", node_id, request.model_dump(mode="json"))


def _require_removal(access: Access) -> None:
    """Who takes a node away must be an editor where it stands; a root's place is its owner's."""
    access.require(Role.EDITOR if access.node.parent_id else Role.OWNER)
    if access.node.parent_id:
        access_of(access.chain[1:], access.subject).require(Role.EDITOR)


def _require_insertion(access: Access, parent: Access | None) -> None:
    """Who puts a node below *parent* must be an editor there, and more where that decides who may do what."""
    if parent is not None:
        parent.require(Role.EDITOR)
    if parent is None or parent.owner != access.owner:
        # Else an editor could make a node their own by putting it into a tree of theirs, and purge it there.
        access.require(Role.OWNER)
    elif access.node.visibility is None and parent.visibility is not access.visibility:
        # Else an editor could show a node to anybody by putting it below something public.
        access.require(Role.ADMIN)


async def check_placement(tx: CommandTransaction, access: Access, parent: Access) -> None:
    """Let a held node pass that can stand below a held *parent*, with all that is below it.

    Raises:
        TreeRefused: it cannot.
        TitleTaken: another study of the folder has its title.
    """
    node = tx.node(access.node.id)
    if any(one.id == node.id for one in parent.chain):
        raise TreeCycle
    _check_parent(node.kind, parent)
    [row] = await tx.executor.fetch(NODES_SQL["subtree_height"], node.id)
    if len(parent.chain) + row["levels"] > LEVELS_MAX:
        raise TreeTooDeep(LEVELS_MAX)
    if node.kind is NodeKind.STUDY:
        await check_title(tx, parent.node.id, node.title, other_than=node.id)


def _check_parent(kind: NodeKind, parent: Access) -> None:
    if kind is NodeKind.WORKSPACE:
        raise ParentInvalid("a workspace is always a root; leave parent_id out")
    if parent.node.kind is NodeKind.STUDY:
        raise ParentInvalid("a study holds chapters, no nodes; choose a folder or a workspace")


async def check_title(
    tx: CommandTransaction, parent_id: UUID, title: str, *, other_than: UUID | None = None
) -> None:
    """Let a title pass that no other live study of a held folder has.

    Raises:
        TitleTaken: there is one; it is named to those who may read it.
    """
    rows = await tx.executor.fetch(NODES_SQL["title_taken"], parent_id, title, other_than)
    if rows:
        blocking_id: UUID = rows[0]["id"]
        readable = (await tx.access(blocking_id)).may(Role.VIEWER)
        raise TitleTaken(blocking_id if readable else None)


async def next_position(tx: CommandTransaction, parent_id: UUID) -> int:
    """Behind the last child of a held parent."""
    [row] = await tx.executor.fetch(NODES_SQL["next_position"], parent_id)
    return row["position"]


async def _position(tx: CommandTransaction, parent: Access | None, requested: int | None) -> int:
    if requested is not None or parent is None:
        return requested or 0
    return await next_position(tx, parent.node.id)
