"""Permissions on a node: each rule once, and all of them against a plain model."""

from collections.abc import Sequence
from uuid import UUID

import pytest
from backend.workspace.access import Access, Ancestor, access_of
from backend.workspace.errors import (
    GrantRefused,
    NodeNotFound,
    NodeNotTrashed,
    NodeTrashed,
    NodeTrashedWithAncestor,
    RoleMissing,
)
from backend.workspace.sharing._sharing import check_change
from hypothesis import given
from hypothesis import strategies as st
from shared_types.workspace import NodeKind, Role, Visibility

VIEWER, COMMENTER, EDITOR, ADMIN, OWNER = Role
PRIVATE, SHARED, PUBLIC = Visibility
GRANTED = (None, VIEWER, COMMENTER, EDITOR, ADMIN)
LINKED = (None, VIEWER, COMMENTER, EDITOR)
#: A node of a test case: its visibility, the granted role, the role of the link.
Said = tuple[Visibility | None, Role | None, Role | None]


def node(level: int, said: Said, *, trashed: bool = False) -> Ancestor:
    visibility, granted, linked = said
    return Ancestor(
        id=UUID(int=level),
        kind=NodeKind.FOLDER,
        parent_id=None,
        owner_id="owner" if level == 0 else "another-user",
        title="",
        visibility=visibility,
        trashed=trashed,
        trashed_by=None,
        granted=granted,
        linked=linked,
    )


def role_on(*path: Said, subject: str | None = "pupil") -> Role | None:
    """Return the role on the last node of *path*, which begins with the root."""
    chain = [node(level, said) for level, said in enumerate(path)]
    return access_of(chain[::-1], subject).role


def granted(role: Role) -> Said:
    return (None, role, None)


NOTHING: Said = (None, None, None)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param([NOTHING], None, id="a stranger has nothing"),
        pytest.param([granted(EDITOR), NOTHING, NOTHING], EDITOR, id="a grant holds for all below"),
        pytest.param([NOTHING, granted(EDITOR)], EDITOR, id="a grant needs none above"),
        pytest.param([granted(VIEWER), granted(EDITOR)], EDITOR, id="the nearest counts, higher"),
        pytest.param([granted(ADMIN), granted(VIEWER)], VIEWER, id="the nearest counts, lower"),
        pytest.param([granted(ADMIN), (PRIVATE, None, None)], None, id="private suspends a grant above"),
        pytest.param([(PRIVATE, ADMIN, EDITOR), NOTHING], None, id="private is inherited"),
        pytest.param(
            [(PRIVATE, EDITOR, None), (SHARED, None, None)], EDITOR, id="shared again below private"
        ),
        pytest.param([(PUBLIC, None, None), NOTHING], VIEWER, id="public is inherited"),
        pytest.param([(PUBLIC, None, None), (SHARED, None, None)], None, id="shared below public"),
        pytest.param([(PUBLIC, COMMENTER, None)], COMMENTER, id="public lowers no grant"),
        pytest.param([(None, None, EDITOR), NOTHING], EDITOR, id="a link holds for all below"),
        pytest.param([(None, EDITOR, VIEWER)], EDITOR, id="a link lowers no grant"),
        pytest.param([(None, VIEWER, EDITOR)], EDITOR, id="a grant lowers no link"),
        pytest.param([(None, None, EDITOR), granted(VIEWER)], EDITOR, id="nor one further down"),
        pytest.param([(PRIVATE, None, EDITOR)], None, id="private suspends a link"),
    ],
)
def test_each_rule_of_access(path: list[Said], expected: Role | None) -> None:
    assert role_on(*path) is expected


def test_owner_of_the_root_owns_the_whole_tree() -> None:
    assert role_on((PRIVATE, None, None), (PRIVATE, VIEWER, None), subject="owner") is OWNER
    assert role_on(NOTHING, NOTHING, subject="another-user") is None


def test_access_to_a_missing_node_raises_not_found() -> None:
    with pytest.raises(NodeNotFound):
        access_of([], "pupil")


def plain_model(path: Sequence[Said], *, owner: bool) -> Role | None:
    """Return the role by the rules of the contract, applied from the root down."""
    visibility, grant, link = SHARED, None, None
    for here, granted_here, linked_here in path:
        visibility, grant, link = here or visibility, granted_here or grant, linked_here or link
    if owner:
        return OWNER
    roles = {
        PRIVATE: set[Role | None](),
        SHARED: {grant, link},
        PUBLIC: {grant, link, VIEWER},
    }[visibility]
    return next((role for role in (ADMIN, EDITOR, COMMENTER, VIEWER) if role in roles), None)


SAID = st.tuples(st.sampled_from([None, *Visibility]), st.sampled_from(GRANTED), st.sampled_from(LINKED))


@given(path=st.lists(SAID, min_size=1, max_size=6), owner=st.booleans())
def test_all_rules_together_equal_the_plain_model(path: list[Said], owner: bool) -> None:
    assert role_on(*path, subject="owner" if owner else "pupil") is plain_model(path, owner=owner)


def accessed(role: Role | None, trashed_level: int | None = None) -> Access:
    """Return the access with *role* to a grandchild; the node *trashed_level* levels above is trashed."""
    said = [NOTHING, NOTHING, (None, role, None)]
    chain = [node(2 - level, said[2 - level], trashed=level == trashed_level) for level in range(3)]
    return access_of(chain, "pupil")


@given(
    role=st.sampled_from(GRANTED),
    needed=st.sampled_from(list(Role)),
    trashed=st.sampled_from([None, 0, 1, 2]),
)
def test_hidden_node_is_not_found_and_readable_node_is_role_missing(
    role: Role | None, needed: Role, trashed: int | None
) -> None:
    access = accessed(role, trashed)
    if role is None or trashed is not None:
        with pytest.raises(NodeNotFound):
            access.require(needed)
    elif role.rank < needed.rank:
        with pytest.raises(RoleMissing, match=needed):
            access.require(needed)
    else:
        access.require(needed)


def test_trashed_node_is_in_the_bin_itself_or_with_an_ancestor() -> None:
    accessed(EDITOR).require_live()
    accessed(EDITOR, 0).require_trashed()
    with pytest.raises(NodeTrashed):
        accessed(EDITOR, 2).require_live()
    with pytest.raises(NodeNotTrashed):
        accessed(EDITOR).require_trashed()
    with pytest.raises(NodeTrashedWithAncestor) as refused:
        accessed(EDITOR, 1).require_trashed()
    assert refused.value.batch_root == UUID(int=1)


@given(
    actor=st.sampled_from([VIEWER, ADMIN, OWNER]),
    own=st.booleans(),
    before=st.sampled_from(GRANTED),
    after=st.sampled_from(GRANTED),
)
def test_only_owners_change_admins_and_no_user_raises_their_own_role(
    actor: Role, own: bool, before: Role | None, after: Role | None
) -> None:
    ranks = [0 if role is None else 1 + role.rank for role in (before, after)]
    if actor is OWNER:
        allowed = True
    elif own:
        allowed = ranks[1] <= ranks[0]
    else:
        allowed = before == after or ADMIN not in (before, after)
    if allowed:
        check_change(actor, own=own, before=before, after=after)
    else:
        with pytest.raises(GrantRefused if own else RoleMissing):
            check_change(actor, own=own, before=before, after=after)
