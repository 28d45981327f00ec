"""Who may do what on a node: pure, decided from the node and its ancestors (workspace.md)."""

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
    """A node on the way from one node up to its root, as far as access depends on it."""

    id: UUID
    kind: NodeKind
    parent_id: UUID | None
    owner_id: str
    title: str
    #: Null: as the nearest ancestor that says.
    visibility: Visibility | None
    trashed: bool
    trashed_by: str | None
    #: What is granted here to who asks; null for nothing.
    granted: Role | None
    #: What the link that the request came with gives here; null for nothing.
    linked: Role | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """A node with its ancestors, and what somebody may do on it.

    Invariant: ``chain`` begins with the node and ends with the root of its tree.
    """

    chain: tuple[Ancestor, ...]
    subject: str | None
    #: Null: may not even read.
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
        """The ancestors that may be read, from the parent up: a guest learns nothing of the others."""
        above = self.chain[1:]
        return tuple(
            one for place, one in enumerate(above) if access_of(above[place:], self.subject).role is not None
        )

    @property
    def parent_id(self) -> UUID | None:
        """The parent, if it may be read; null for a root as well."""
        return self.node.parent_id if self.may_read_above(str(self.node.parent_id)) else None

    def may_read_above(self, node_id: str) -> bool:
        """Whether *node_id* is the id of an ancestor that may be read."""
        above = self.chain[1:]
        place = next((place for place, one in enumerate(above) if str(one.id) == node_id), None)
        return place is not None and access_of(above[place:], self.subject).role is not None

    @property
    def owner(self) -> str:
        """Who owns the tree."""
        return self.root.owner_id

    @property
    def trashed(self) -> Ancestor | None:
        """The nearest node of the chain that was trashed; null for a live node."""
        return next((one for one in self.chain if one.trashed), None)

    @property
    def sees_trashed(self) -> bool:
        """Whether who asks sees it in the bin: the owner, and who trashed it if they could read it live."""
        trashed = self.trashed
        if trashed is None or self.role is None:
            return False
        return self.role is Role.OWNER or trashed.trashed_by == self.subject

    def may(self, needed: Role) -> bool:
        """Whether the role is enough for *needed*."""
        return self.role is not None and self.role.rank >= needed.rank

    def require(self, needed: Role) -> None:
        """Let only those pass who may do what *needed* may, to a live node.

        Raises:
            NodeNotFound: it is in the bin, or not to be read by who asks.
            RoleMissing: it may be read, but this not be done.
        """
        if self.trashed is not None:
            raise NodeNotFound
        self.require_role(needed)

    def require_role(self, needed: Role) -> None:
        """The same for a node that may be in the bin.

        Raises:
            NodeNotFound: it is not to be read by who asks.
            RoleMissing: it may be read, but this not be done.
        """
        if self.role is None:
            raise NodeNotFound
        if not self.may(needed):
            raise RoleMissing(needed)

    def require_kind(self, kind: NodeKind) -> None:
        """Let only a node of this *kind* pass; another one has nothing under this address.

        Raises:
            NodeNotFound: it is of another kind.
        """
        if self.node.kind is not kind:
            raise NodeNotFound

    def require_trashing(self) -> None:
        """Let only those pass who may put it into the bin, or could if it were not there already.

        Raises:
            NodeNotFound: it is not to be read by who asks, or in the bin and not theirs to put there.
            RoleMissing: it may be read, but not trashed; a whole tree only by its owner.
        """
        needed = Role.EDITOR if self.node.parent_id else Role.OWNER
        if self.trashed is not None and not self.may(needed):
            raise NodeNotFound
        self.require_role(needed)

    def require_restoring(self) -> None:
        """Let only those pass who may take it out of the bin, or could have.

        Raises:
            NodeNotFound: it is not to be seen by who asks.
            RoleMissing: it is live, and may only be read.
        """
        if self.trashed is None:
            self.require_role(Role.EDITOR)
        elif not self.sees_trashed:
            raise NodeNotFound

    def require_purging(self) -> None:
        """Let only the tree's owner pass.

        Raises:
            NodeNotFound: it is not to be seen by who asks.
            RoleMissing: it may be seen, but not purged.
        """
        if self.trashed is not None and not self.sees_trashed:
            raise NodeNotFound
        self.require_role(Role.OWNER)

    def require_live(self) -> None:
        """Let only a live node pass.

        Raises:
            NodeTrashed: it is in the bin, by itself or with an ancestor.
        """
        if self.trashed is not None:
            raise NodeTrashed

    def require_trashed(self) -> None:
        """Let only the root of what was trashed together pass.

        Raises:
            NodeNotTrashed: it is not in the bin.
            NodeTrashedWithAncestor: it went there with an ancestor.
        """
        if self.node.trashed:
            return
        if self.trashed is not None:
            raise NodeTrashedWithAncestor(self.trashed.id)
        raise NodeNotTrashed


def access_of(chain: Sequence[Ancestor], subject: str | None) -> Access:
    """What *subject* (null: nobody in particular) may do on the first node of *chain*.

    The root's owner owns the whole tree. Of grants the nearest counts, even if one further up gives more; a
    link gives what it says. ``private`` suspends both, ``public`` lets anybody read.

    Raises:
        NodeNotFound: the chain is empty.
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
