"""Commands on nodes: create, update, move."""

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
    """Create a node below a parent, or, without a parent, a root that the sender owns; return the id.

    Raises:
        NodeNotFound: The parent does not exist, or the sender may not read it.
        RoleMissing: The sender is not an editor of the parent, or sets a visibility without being an admin.
        ParentInvalid: The node is a workspace, which cannot have a parent; or the parent is a study.
        TreeTooDeep: The tree would have more than `LEVELS_MAX` levels.
        TitleTaken: Another live study of the folder has the title.
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
    """Emit the event that creates a node, and return the node's id; the caller records the command.

    Args:
        tx: The command's transaction.
        request: The node's fields.
        parent: The sender's access to the parent; None for a root. For a study, the caller must have locked
            or created the parent: otherwise another transaction could create a study with the same title.
        node_id: The id of the node; None for a new id.
        cause: The event that caused the creation, see :meth:`CommandTransaction.emit`.

    Raises:
        RoleMissing, ParentInvalid, TreeTooDeep, TitleTaken: As for :func:`create_node`.
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
    """Change the fields of a node that *request* contains, if *match* allows the node's version.

    Raises:
        NodeNotFound: The node does not exist, or the sender may not read it.
        RoleMissing: The sender is not an editor, or changes the visibility without being an admin.
        VersionStale: The node does not have the version that *match* requires.
        TitleTaken: Another study of the folder has the title.
        ParentInvalid: The node is a root, which cannot inherit its visibility.
    """
    given = request.model_dump(mode="json", include=request.model_fields_set)
    layout = given.pop("layout", None)
    given = {name: value for name, value in given.items() if value is not None or name == "visibility"}
    access = await _lock_with_folder(tx, node_id, titled="title" in given)
    match.check(tx.node(node_id).version)
    if "visibility" in given:
        access.require(Role.ADMIN)
        if given["visibility"] is None and access.node.parent_id is None:
            raise ParentInvalid("a root cannot inherit a visibility; choose private, shared or public")
    if request.title and access.node.kind is NodeKind.STUDY and access.node.parent_id is not None:
        await check_title(tx, access.node.parent_id, request.title, other_than=node_id)
    if given:
        await tx.emit(WorkspaceEvent.NODE_UPDATED, node_id, given)
    if layout is not None:
        kept = {name: value for name, value in layout.items() if value is not None}
        await tx.emit(WorkspaceEvent.LAYOUT_UPDATED, node_id, {"layout": kept})
    await tx.record("UpdateNode", node_id, request.model_dump(mode="json", include=request.model_fields_set))


async def _lock_with_folder(tx: CommandTransaction, node_id: UUID, *, titled: bool) -> Access:
    """Lock a node. If *titled*, the command changes the title of the node, and the folder is locked too.

    The lock of the folder excludes commands that give another study of the folder the same title.

    Raises:
        NodeNotFound, RoleMissing: See :meth:`Access.require`; the needed role is editor.
        RetryTransaction: The node was moved before it was locked.
    """
    if not titled:
        return await lock_node(tx, node_id, Role.EDITOR)
    parent_id = (await tx.access(node_id)).node.parent_id
    access = await lock_in_place(tx, node_id, *([parent_id] if parent_id else []))
    if access.node.parent_id != parent_id:
        raise RetryTransaction(f"node {node_id} was moved during the command; repeat the transaction")
    access.require(Role.EDITOR)
    return access


async def move_node(tx: CommandTransaction, node_id: UUID, request: MoveNode, match: IfMatch) -> None:
    """Move a node with its subtree below another parent; only the row of the node changes.

    The trees of both parents are locked, so that two concurrent moves cannot create a cycle.

    Raises:
        NodeNotFound: The node or the parent does not exist, or the sender may not read it.
        RoleMissing: The sender is not an editor of both parents; or the inherited visibility changes, and the
            sender is not an admin; or the node becomes a root or enters another owner's tree, and the sender
            is not the owner.
        VersionStale: The node does not have the version that *match* requires.
        TreeRefused, TitleTaken: As for :func:`check_placement`.
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
        # A root cannot inherit a visibility.
        "visibility": node.visibility or (access.visibility if parent is None else None),
    }
    await tx.emit(WorkspaceEvent.NODE_MOVED, node_id, payload)
    await tx.record("MoveNode", node_id, request.model_dump(mode="json"))


def _require_removal(access: Access) -> None:
    """Require the role editor on the node and its parent; for a root, the role owner."""
    access.require(Role.EDITOR if access.node.parent_id else Role.OWNER)
    if access.node.parent_id:
        access_of(access.chain[1:], access.subject).require(Role.EDITOR)


def _require_insertion(access: Access, parent: Access | None) -> None:
    """Require the role editor on *parent*, and a higher role on the node if the move changes access to it."""
    if parent is not None:
        parent.require(Role.EDITOR)
    if parent is None or parent.owner != access.owner:
        # Otherwise an editor could move a node into a tree that the editor owns, and purge the node there.
        access.require(Role.OWNER)
    elif access.node.visibility is None and parent.visibility is not access.visibility:
        # Otherwise an editor could make a node public by moving it below a public node.
        access.require(Role.ADMIN)


async def check_placement(tx: CommandTransaction, access: Access, parent: Access) -> None:
    """Require that a node with its subtree can be placed below *parent*; the caller has locked both.

    Raises:
        TreeCycle: *parent* is the node or below the node.
        ParentInvalid: The node is a workspace, which cannot have a parent; or *parent* is a study.
        TreeTooDeep: The tree would have more than `LEVELS_MAX` levels.
        TitleTaken: The node is a study, and another live study below *parent* has the title.
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
        raise ParentInvalid("a workspace is always a root; omit parent_id")
    if parent.node.kind is NodeKind.STUDY:
        raise ParentInvalid("the parent is a study, which contains no nodes; choose a folder or a workspace")


async def check_title(
    tx: CommandTransaction, parent_id: UUID, title: str, *, other_than: UUID | None = None
) -> None:
    """Require that no live study in a folder has the title, apart from the study *other_than*.

    The caller must have locked the folder: otherwise another transaction could take the title after this
    check.

    Raises:
        TitleTaken: Another study has the title. The error contains the id of that study if the sender may
            read the study, else None.
    """
    rows = await tx.executor.fetch(NODES_SQL["title_taken"], parent_id, title, other_than)
    if rows:
        blocking_id: UUID = rows[0]["id"]
        readable = (await tx.access(blocking_id)).may(Role.VIEWER)
        raise TitleTaken(blocking_id if readable else None)


async def next_position(tx: CommandTransaction, parent_id: UUID) -> int:
    """Return the position after the last child of the node *parent_id*; 0 without children.

    Without a lock on the node, a concurrent transaction may get the same position.
    """
    [row] = await tx.executor.fetch(NODES_SQL["next_position"], parent_id)
    return row["position"]


async def _position(tx: CommandTransaction, parent: Access | None, requested: int | None) -> int:
    if requested is not None or parent is None:
        return requested or 0
    return await next_position(tx, parent.node.id)
