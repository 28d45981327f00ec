"""Access to nodes: a pure function of a node, its ancestors and a user (workspace.md, Roles)."""

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

#: Levels of a tree, its root included.
LEVELS_MAX = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Ancestor:
    """A node or one of its ancestors, with the fields that access depends on."""

    id: UUID
    kind: NodeKind
    parent_id: UUID | None
    owner_id: str
    title: str
    #: The visibility of the node; None: inherited from the nearest ancestor that has a visibility.
    visibility: Visibility | None
    trashed: bool
    trashed_by: str | None
    #: The role granted to the requester on this node; None without a grant.
    granted: Role | None
    #: The role that the request's share link gives on this node; None without one.
    linked: Role | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """A node with its ancestors, and the role of one requester on it.

    Invariant: ``chain`` begins with the node and ends with the root of its tree.
    """

    chain: tuple[Ancestor, ...]
    #: The requester; None without a token.
    subject: str | None
    #: The role on the node; None if the requester may not read the node.
    role: Role | None
    visibility: Visibility

    @property
    def node(self) -> Ancestor:
        """The node itself."""
        return self.chain[0]

    @property
    def root(self) -> Ancestor:
        """The root of its tree."""
        return self.chain[-1]

    @property
    def readable_above(self) -> tuple[Ancestor, ...]:
        """The ancestors that the requester may read, from the parent up."""
        above = self.chain[1:]
        return tuple(
            one for place, one in enumerate(above) if access_of(above[place:], self.subject).role is not None
        )

    @property
    def parent_id(self) -> UUID | None:
        """The parent; None for a root, and if the requester may not read the parent."""
        return self.node.parent_id if self.may_read_above(str(self.node.parent_id)) else None

    def may_read_above(self, node_id: str) -> bool:
        """Return whether *node_id* is an ancestor that the requester may read."""
        above = self.chain[1:]
        place = next((place for place, one in enumerate(above) if str(one.id) == node_id), None)
        return place is not None and access_of(above[place:], self.subject).role is not None

    @property
    def owner(self) -> str:
        """The owner of the tree."""
        return self.root.owner_id

    @property
    def trashed(self) -> Ancestor | None:
        """The nearest trashed node of the chain; None for a live node."""
        return next((one for one in self.chain if one.trashed), None)

    @property
    def sees_trashed(self) -> bool:
        """Whether the requester sees the node in the bin.

        These are the owner, and the user who trashed it, if that user could read the live node.
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
        """Require a kind of node.

        Raises:
            NodeNotFound: The node has another kind, so the path of the request does not exist.
        """
        if self.node.kind is not kind:
            raise NodeNotFound

    def require_trashing(self) -> None:
        """Require the right to trash the node: editors, for a root its owner.

        Raises:
            NodeNotFound: The requester may not read the node; or it is trashed, and the requester has no
                right to.
            RoleMissing: The requester may read the node, but not trash it.
        """
        needed = Role.EDITOR if self.node.parent_id else Role.OWNER
        if self.trashed is not None and not self.may(needed):
            raise NodeNotFound
        self.require_role(needed)

    def require_restoring(self) -> None:
        """Require the right to restore the node: the owner, and the user who trashed it.

        Raises:
            NodeNotFound: The requester may not see the node.
            RoleMissing: The node is live, and the requester is not an editor.
        """
        if self.trashed is None:
            self.require_role(Role.EDITOR)
        elif not self.sees_trashed:
            raise NodeNotFound

    def require_purging(self) -> None:
        """Require the owner of the tree.

        Raises:
            NodeNotFound: The requester may not see the node.
            RoleMissing: The requester may see the node, but does not own the tree.
        """
        if self.trashed is not None and not self.sees_trashed:
            raise NodeNotFound
        self.require_role(Role.OWNER)

    def require_live(self) -> None:
        """Require a live node.

        Raises:
            NodeTrashed: The node or an ancestor is in the bin.
        """
        if self.trashed is not None:
            raise NodeTrashed

    def require_trashed(self) -> None:
        """Require the root of a batch in the bin.

        Raises:
            NodeNotTrashed: The node is not in the bin.
            NodeTrashedWithAncestor: The node was trashed with an ancestor.
        """
        if self.node.trashed:
            return
        if self.trashed is not None:
            raise NodeTrashedWithAncestor(self.trashed.id)
        raise NodeNotTrashed


def access_of(chain: Sequence[Ancestor], subject: str | None) -> Access:
    """Return the access of *subject* (None: no token) to the first node of *chain*.

    The owner of the root owns the whole tree. The nearest grant counts, even if an ancestor has a grant with
    a higher role; a share link gives its role. ``private`` suspends both; ``public`` gives every requester
    the role viewer.

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
