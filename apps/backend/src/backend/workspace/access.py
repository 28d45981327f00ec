"""Access to nodes: pure functions of a node, its ancestors and a user (docs/reference/workspace.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from shared_types.workspace import NodeKind, Role, Visibility

from backend.workspace.errors import (
    NodeNotFound,
    NodeNotTrashed,
    NodeTrashed,
    NodeTrashedWithAncestor,
    RoleMissing,
)

__all__ = ("LEVELS_MAX", "Access", "Ancestor", "access_of")

#: Maximum number of levels in a tree, including the root.
LEVELS_MAX = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Ancestor:
    """A node of an access chain: the node of the request or one of its ancestors.

    The fields are those that determine the access of one requester.
    """

    id: UUID
    kind: NodeKind
    parent_id: UUID | None
    owner_id: str
    title: str
    #: The visibility of the node; None: inherited from the nearest ancestor that has a visibility.
    visibility: Visibility | None
    #: The node itself was trashed, and not only an ancestor.
    trashed: bool
    #: The user who trashed the node; None if it was not trashed.
    trashed_by: str | None
    #: The role granted to the requester on this node; None without a grant.
    granted: Role | None
    #: The role that the request's share link gives on this node; None if there is none.
    linked: Role | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """A node with its ancestors, and the access of one requester, the sender of a request, to the node.

    Invariant: ``chain`` begins with the node and ends with the root of its tree.
    """

    chain: tuple[Ancestor, ...]
    #: The user id of the requester; None without a bearer token.
    subject: str | None
    #: The role on the node; None if the requester may not read the node.
    role: Role | None
    #: The node's own visibility, or the visibility that the node inherits.
    visibility: Visibility

    @property
    def node(self) -> Ancestor:
        """Return the node, the first of the chain."""
        return self.chain[0]

    @property
    def root(self) -> Ancestor:
        """Return the root of the node's tree, the last of the chain."""
        return self.chain[-1]

    @property
    def readable_above(self) -> tuple[Ancestor, ...]:
        """Return the ancestors that the requester may read, from the parent to the root."""
        above = self.chain[1:]
        return tuple(
            one for place, one in enumerate(above) if access_of(above[place:], self.subject).role is not None
        )

    @property
    def parent_id(self) -> UUID | None:
        """Return the id of the parent; None for a root, or if the requester may not read the parent."""
        return self.node.parent_id if self.may_read_above(str(self.node.parent_id)) else None

    def may_read_above(self, node_id: str) -> bool:
        """Return whether *node_id* is an ancestor that the requester may read."""
        above = self.chain[1:]
        place = next((place for place, one in enumerate(above) if str(one.id) == node_id), None)
        return place is not None and access_of(above[place:], self.subject).role is not None

    @property
    def owner(self) -> str:
        """Return the user id of the tree's owner."""
        return self.root.owner_id

    @property
    def trashed(self) -> Ancestor | None:
        """Return the first node of the chain that was trashed; None if the node is live."""
        return next((one for one in self.chain if one.trashed), None)

    @property
    def sees_trashed(self) -> bool:
        """Return whether the node is in the bin, and the requester may see its batch in the bin.

        The owner of the tree sees all batches. The user who trashed a batch sees this batch, if the user may
        still read the node. A batch is the nodes that were trashed together.
        """
        trashed = self.trashed
        if trashed is None or self.role is None:
            return False
        return self.role is Role.OWNER or trashed.trashed_by == self.subject

    def may(self, needed: Role) -> bool:
        """Return whether the requester has the role *needed* or a higher one."""
        return self.role is not None and self.role.rank >= needed.rank

    def require(self, needed: Role) -> None:
        """Require a role on a live node.

        Raises:
            NodeNotFound: The node is in the bin, or the requester may not read it.
            RoleMissing: The requester may read the node, but has a lower role.
        """
        if self.trashed is not None:
            raise NodeNotFound
        self.require_role(needed)

    def require_role(self, needed: Role) -> None:
        """Require a role on a node, live or in the bin.

        Raises:
            NodeNotFound: The requester may not read the node.
            RoleMissing: The requester may read the node, but has a lower role.
        """
        if self.role is None:
            raise NodeNotFound
        if not self.may(needed):
            raise RoleMissing(needed)

    def require_kind(self, kind: NodeKind) -> None:
        """Require that the node is of *kind*, which the URL path of the request implies.

        Raises:
            NodeNotFound: The node has another kind. For example, the id after ``/studies/`` is that of a
                folder.
        """
        if self.node.kind is not kind:
            raise NodeNotFound

    def require_trashing(self) -> None:
        """Require the role to trash the node: editor, or owner if the node is a root.

        This does not check whether the node is in the bin already; :meth:`require_live` does.

        Raises:
            NodeNotFound: The requester may not read the node; or the node is in the bin already, and the
                requester does not have the role.
            RoleMissing: The requester may read the node, but does not have the role.
        """
        needed = Role.EDITOR if self.node.parent_id else Role.OWNER
        if self.trashed is not None and not self.may(needed):
            raise NodeNotFound
        self.require_role(needed)

    def require_restoring(self) -> None:
        """Require that the requester may restore the node, or, if the node is live, is an editor of the node.

        This does not check whether the node is in the bin; :meth:`require_trashed` does.

        Raises:
            NodeNotFound: The node is in the bin, and the requester does not see it there
                (:attr:`sees_trashed`); or the node is live, and the requester may not read it.
            RoleMissing: The node is live, and the requester may read it, but is not an editor.
        """
        if self.trashed is None:
            self.require_role(Role.EDITOR)
        elif not self.sees_trashed:
            raise NodeNotFound

    def require_purging(self) -> None:
        """Require that the requester owns the tree.

        Raises:
            NodeNotFound: The requester may not read the node, or does not see it in the bin.
            RoleMissing: The requester may read the node, but does not own the tree.
        """
        if self.trashed is not None and not self.sees_trashed:
            raise NodeNotFound
        self.require_role(Role.OWNER)

    def require_live(self) -> None:
        """Require that the node is live.

        Raises:
            NodeTrashed: The node or an ancestor was trashed.
        """
        if self.trashed is not None:
            raise NodeTrashed

    def require_trashed(self) -> None:
        """Require that the node is the topmost node of a batch in the bin.

        Raises:
            NodeNotTrashed: The node is live.
            NodeTrashedWithAncestor: The node is in the bin because an ancestor was trashed.
        """
        if self.node.trashed:
            return
        if self.trashed is not None:
            raise NodeTrashedWithAncestor(self.trashed.id)
        raise NodeNotTrashed


def access_of(chain: Sequence[Ancestor], subject: str | None) -> Access:
    """Return the access of a requester to the first node of *chain*.

    The owner of the root owns the whole tree. Every other requester gets the highest of these roles: that of
    the nearest grant, even if an ancestor has a grant with a higher role; that of the share link; and viewer,
    if the visibility is ``public``. If the visibility is ``private``, grants and links have no effect. The
    visibility is that of the nearest node with a visibility; without one, ``shared``.

    Args:
        chain: The node, its parent, and so on to the root; empty if the node does not exist.
        subject: The user id of the requester; None without a bearer token.

    Raises:
        NodeNotFound: The chain is empty.
    """
    if not chain:
        raise NodeNotFound
    visibility = next((one.visibility for one in chain if one.visibility), Visibility.SHARED)
    return Access(
        chain=tuple(chain), subject=subject, role=_role(chain, subject, visibility), visibility=visibility
    )


def _role(chain: Sequence[Ancestor], subject: str | None, visibility: Visibility) -> Role | None:
    if subject is not None and chain[-1].owner_id == subject:
        return Role.OWNER
    if visibility is Visibility.PRIVATE:
        return None
    found = [
        next((one.granted for one in chain if one.granted), None),
        next((one.linked for one in chain if one.linked), None),
        Role.VIEWER if visibility is Visibility.PUBLIC else None,
    ]
    return max((role for role in found if role), key=lambda role: role.rank, default=None)
