"""After any sequence of operations on trees, the workspace equals a model in plain Python."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from itertools import count
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from relaybox.db import Database
from relaybox.settings import PostgresSettings

from tests.fixtures.node_events import assert_rows_match_events
from tests.fixtures.studio import Person, Studio, open_studio
from tests.fixtures.tree_model import Node, Refused, TreeModel

T = TypeVar("T")
_ROWS = """
    SELECT id::text, kind::text, title, parent_id::text AS parent, owner_id AS owner, visibility::text,
        position, version, trashed_by, trash_count, trash_path::text[] AS trash_path
    FROM workspace_nodes WHERE owner_id LIKE '%' || $1
"""
_NAMES = ("ann", "ben", "cat")
_numbers = count(1)

#: The owner is chosen more often, because fewer operations of the owner are refused.
people = st.sampled_from((*["owner"] * 4, *_NAMES))
names = st.sampled_from(_NAMES)
kinds = st.sampled_from(("workspace", "folder", "folder", "study", "study"))
titles = st.sampled_from(("Endgames", "Openings", "Problems"))
roles = st.sampled_from(("viewer", "editor", "admin"))
visibilities = st.sampled_from((None, "private", "shared", "public"))
which = st.integers(0, 10_000)
stale = st.sampled_from((*[False] * 9, True))


class World:
    """The application in its own event loop, because the methods of a state machine are synchronous."""

    def __init__(self, runner: asyncio.Runner, database: Database, studio: Studio) -> None:
        self.runner, self.database, self.studio = runner, database, studio
        #: Number of steps by operation and result.
        self.steps = Counter[str]()
        #: Number of steps with a rare result.
        self.special = Counter[str]()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* in the loop and return its result."""
        return self.runner.run(work)


class TreeMachine(RuleBasedStateMachine):
    """Apply each operation to the workspace and to the model; compare responses and states."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world, self.model = world, TreeModel()
        # Each example has its own user names, because the examples share a database.
        self.mark = f"-{next(_numbers)}"
        #: Ids of purged nodes, and one id that never existed.
        self.gone = [str(uuid4())]

    @initialize()
    def begin(self) -> None:
        """Create the first tree."""
        club = self._create("ann", "workspace", "Club", None)
        for title in ("Openings", "Endgames"):
            folder = self._create("ann", "folder", title, club)
            self._create("ann", "study", title, self._create("ann", "folder", title, folder))

    # Operations.

    @rule(user=people, kind=kinds, title=titles, at=which, visibility=visibilities)
    def create(self, user: str, kind: str, title: str, at: int, visibility: str | None) -> None:
        self._create(user, kind, title, self._place(at, self._name(user, None)), visibility)

    def _create(
        self, user: str, kind: str, title: str, parent: str | None, visibility: str | None = None
    ) -> str | None:
        name, model = self._name(user, parent), self.model
        body = {"kind": kind, "title": title, "parent_id": parent, "visibility": visibility}
        asked = self._person(name).send("POST", "/nodes", body)
        made = self._same("create", asked, lambda: model.check_create(name, kind, title, parent, visibility))
        if made is not None:
            model.create(made["id"], name, kind, title, parent, visibility)
        return made and made["id"]

    @rule(user=people, at=which, title=titles, old=stale)
    def rename(self, user: str, at: int, title: str, old: bool) -> None:
        name, node, model = *self._asking(user, self._any(at)), self.model
        asked = self._person(name).send(
            "PATCH", f"/nodes/{node}", {"title": title}, match=self._version(node, old)
        )
        self._same("rename", asked, lambda: model.rename(name, node, title, stale=old))
        self._compare(name)

    @rule(user=people, at=which, visibility=visibilities, old=stale)
    def show(self, user: str, at: int, visibility: str | None, old: bool) -> None:
        name, node, model = *self._asking(user, self._any(at)), self.model
        body = {"visibility": visibility}
        asked = self._person(name).send("PATCH", f"/nodes/{node}", body, match=self._version(node, old))
        self._same("show", asked, lambda: model.set_visibility(name, node, visibility, stale=old))
        self._compare(name)

    @rule(user=people, at=which, to=which, old=stale)
    def move(self, user: str, at: int, to: int, old: bool) -> None:
        name, node, model = *self._asking(user, self._any(at)), self.model
        parent = self._place(to, name)
        body = {"parent_id": parent}
        asked = self._person(name).send("POST", f"/nodes/{node}/move", body, match=self._version(node, old))
        self._same("move", asked, lambda: model.move(name, node, parent, stale=old))
        self._compare(name)

    @rule(user=people, at=which, old=stale)
    def trash(self, user: str, at: int, old: bool) -> None:
        self._trash(user, self._any(at), old=old)

    def _trash(self, user: str, node: str, *, old: bool = False) -> None:
        name, model = self._name(user, node), self.model
        asked = self._person(name).send("DELETE", f"/nodes/{node}", match=self._version(node, old))
        self._same("trash", asked, lambda: model.trash(name, node, stale=old))
        self._compare(name)

    @rule(user=people, at=which)
    def restore(self, user: str, at: int) -> None:
        name, node, model = *self._asking(user, self._trashed(at)), self.model
        told: list[tuple[str | None, bool, int]] = []
        asked = self._person(name).send("POST", f"/nodes/{node}/restore")
        back = self._same("restore", asked, lambda: told.append(model.restore(name, node)))
        assert back is None or [(back["restored_to"], back["fallback"], back["count"])] == told
        if back is not None and back["fallback"]:
            self.world.special["restore elsewhere"] += 1
        self._compare(name)

    @rule(user=people, at=which, dry_run=st.booleans())
    def purge(self, user: str, at: int, dry_run: bool) -> None:
        name, node, model = *self._asking(user, self._trashed(at)), self.model
        told, before = list[int](), {one.id: one.parent for one in model.nodes.values()}
        asked = self._person(name).send("DELETE", f"/nodes/{node}/purge?dry_run={dry_run}")
        counts = self._same("purge", asked, lambda: told.append(model.purge(name, node, dry_run=dry_run)))
        assert not counts or [counts["nodes"]] == told
        self.gone += before.keys() - model.nodes.keys()
        if any(before[one.id] != one.parent for one in model.nodes.values()):
            self.world.special["purge around a batch"] += 1
        self._compare(name)

    @rule(user=people, at=which, other=names, role=roles)
    def grant(self, user: str, at: int, other: str, role: str) -> None:
        name, node, model = *self._asking(user, self._any(at)), self.model
        other += self.mark
        body = {"user_id": other, "role": role}
        asked = self._person(name).send("POST", f"/share/{node}/users", body)
        self._same("grant", asked, lambda: model.grant(name, node, other, role))

    @rule(user=people, at=which, other=names)
    def revoke(self, user: str, at: int, other: str) -> None:
        shared = [one.id for one in self.model.nodes.values() if one.grants] if at % 6 else []
        node = _chosen(shared, at // 6) if shared else self._any(at // 6)
        name, model = self._name(user, node), self.model
        granted = [*(model.nodes[node].grants if node in model.nodes else ())]
        other = granted[at % len(granted)] if granted else other + self.mark
        asked = self._person(name).send("DELETE", f"/share/{node}/users/{other}")
        self._same("revoke", asked, lambda: model.revoke(name, node, other))

    @rule(user=people, at=which)
    def look(self, user: str, at: int) -> None:
        """Read a node and its tree as a user."""
        name, node, model = *self._asking(user, self._any(at)), self.model
        tree = self._person(name).send("GET", f"/nodes/tree?root_id={node}")
        seen = self._same("look", tree, lambda: model.require(name, node, "viewer"))
        if seen is not None:
            assert {one["id"] for one in seen["items"]} == set(model.tree(name, node))
            shown = self.world.run(self._person(name).call("GET", f"/nodes/{node}"))
            assert (shown["role"], shown["visibility"]) == (model.role(name, node), model.visibility(node))

    # Comparisons.

    def _same(self, what: str, asked: Coroutine[Any, Any, Any], act: Callable[[], object]) -> Any:
        """Send a request and *act* on the model; return the body, or None if both refuse alike."""
        answer, refused = self.world.run(asked), None
        told = answer.json() if answer.content else {}
        try:
            act()
        except Refused as refusal:
            refused = refusal.answer
        said = None if answer.is_success else (answer.status_code, told["error_code"])
        assert said == refused, f"{what}: {answer.request.method} {answer.request.url} {told}"
        self.world.steps[f"{what} {refused[1] if refused else 'done'}"] += 1
        return None if refused else told

    def _compare(self, name: str) -> None:
        """Compare the rows of all nodes, and the bin of user *name*, with the model."""
        rows = self.world.run(self._rows())
        assert rows == {node.id: _row(node) for node in self.model.nodes.values()}
        items = self.world.run(self._person(name).call("GET", "/trash?limit=200"))["items"]
        told = [(one["id"], one["count"], one["trashed_by"], one["may_purge"]) for one in items]
        assert told == [
            (one.id, one.trash.count, one.trash.by, self.model.owner(one.id) == name)
            for one in self.model.trash_of(name)
            if one.trash
        ]

    async def _rows(self) -> dict[str, Any]:
        async with self.world.database.connection() as connection:
            rows = await connection.fetch(_ROWS, self.mark)
        return {row["id"]: dict(row) for row in rows}

    # Users and nodes of a step.

    def _asking(self, user: str, node: str) -> tuple[str, str]:
        return self._name(user, node), node

    def _name(self, user: str, node: str | None) -> str:
        if user == "owner" and node in self.model.nodes:
            return self.model.owner(node)
        return ("ann" if user == "owner" else user) + self.mark

    def _person(self, name: str) -> Person:
        return self.world.studio.person(name)

    def _any(self, at: int) -> str:
        """Return a live node most of the time, else any node, or the id that was purged last."""
        nodes = self.model.nodes
        live = [one for one in nodes if self.model.trashed_ancestor(one) is None] if at % 8 else []
        return _chosen(live or [*nodes, self.gone[-1]], at // 8)

    def _place(self, at: int, name: str) -> str | None:
        """Return a parent that user *name* may write to, most of the time; None for a root."""
        model = self.model
        wide = [
            one.id
            for one in model.nodes.values()
            if one.kind != "study" and not model.trashed_ancestor(one.id)
        ]
        known = [one for one in wide if model.has_role(name, one, "editor")] if at % 12 > 2 else wide
        if at % 12 == 0:
            return None
        return self._any(at // 12) if at % 12 == 1 or not known else _chosen(known, at // 12)

    def _trashed(self, at: int) -> str:
        """The topmost node of a batch most of the time; the bin is filled for it."""
        if at % 6 == 0:
            return self._any(at // 6)
        for step in range(3):
            marked = [one.id for one in self.model.nodes.values() if one.trash]
            live = [one for one in self.model.nodes if self.model.trashed_ancestor(one) is None]
            if len(marked) > 1 or not live:
                break
            self._trash("owner", _chosen(live[::-1], at // 6 + step))
        return _chosen(marked, at // 6) if marked else self._any(at // 6)

    def _version(self, node: str, old: bool) -> int:
        version = self.model.nodes[node].version if node in self.model.nodes else 1
        return version + 1_000 if old else version


def _chosen(known: list[str], at: int) -> str:
    return known[at % len(known)]


def _row(node: Node) -> dict[str, Any]:
    return {
        **{name: getattr(node, name) for name in ("id", "kind", "title", "parent", "owner")},
        **{name: getattr(node, name) for name in ("visibility", "position", "version")},
        "trashed_by": node.trash.by if node.trash else None,
        "trash_count": node.trash.count if node.trash else None,
        "trash_path": node.trash.path if node.trash else None,
    }


@contextmanager
def world_on(postgres_settings: PostgresSettings) -> Iterator[World]:
    """The application on the test's own database."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        stack, database = AsyncExitStack(), Database(postgres_settings, application_name="test")
        try:
            yield World(runner, database, runner.run(stack.enter_async_context(open_studio(database))))
        finally:
            runner.run(stack.aclose())
            runner.run(database.close())


def compare(postgres_settings: PostgresSettings, *, steps: int, examples: int) -> Counter[str]:
    """Run at least *steps* steps in several examples; return how often each operation occurred."""
    with world_on(postgres_settings) as world:
        while world.steps.total() < steps:
            limits = settings(max_examples=examples, stateful_step_count=50, deadline=None)
            run_state_machine_as_test(lambda: TreeMachine(world), settings=limits)
        world.run(assert_rows_match_events(world.database))
        return world.steps + world.special


def test_tree_and_bin_match_the_model(postgres_settings: PostgresSettings) -> None:
    assert compare(postgres_settings, steps=150, examples=3)


@pytest.mark.long
def test_tree_and_bin_match_the_model_for_2_000_steps(postgres_settings: PostgresSettings) -> None:
    steps = compare(postgres_settings, steps=2_000, examples=20)
    every = ("create", "rename", "show", "move", "trash", "restore", "purge", "grant", "revoke", "look")
    rare = {"restore elsewhere", "purge around a batch", "move TREE_CYCLE"}
    assert steps.keys() >= {f"{what} done" for what in every} | rare, steps
