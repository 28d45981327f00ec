"""Every workspace route requested by every role: the table of statuses and the page that shows it."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

import httpx2 as httpx
import pytest
from shared_types.workspace import Role

from tests.fixtures.access import PGN, PREFIX, Actor, Actors, WorkspaceTree
from tests.fixtures.product import Product

PAGE = Path(__file__).parents[2] / "docs/reference/access.md"
VIEWER, COMMENTER, EDITOR, ADMIN, OWNER = Role
#: Any user with a token, for their own objects.
SIGNED_IN: Final = "signed in"
#: Also without a token.
PUBLIC: Final = "public"
#: The role of each actor; other actors have none.
ROLES: Final[Mapping[Actor, Role]] = {
    Actor.OWNER: OWNER,
    Actor.ADMIN: ADMIN,
    Actor.EDITOR: EDITOR,
    Actor.COMMENTER: COMMENTER,
    Actor.VIEWER: VIEWER,
    Actor.LINK: VIEWER,
    Actor.LINK_AND_TOKEN: EDITOR,
    Actor.PUBLIC_STRANGER: VIEWER,
    Actor.PUBLIC_ANONYMOUS: VIEWER,
}
NAMELESS: Final = frozenset({Actor.ANONYMOUS, Actor.LINK, Actor.PUBLIC_ANONYMOUS})
OTHERS: Final = frozenset(Actor) - {Actor.OWNER}


def _nothing(_place: WorkspaceTree) -> Any:
    return None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A route of the contract: the least role, the request and the status."""

    least: Role | str
    done: int = 200
    body: Callable[[WorkspaceTree], Any] = _nothing
    params: Callable[[WorkspaceTree], Any] = _nothing
    #: A successful request deletes its object: the next actor needs a new one.
    once: bool = False
    #: Path parameters that differ from the usual ones (:meth:`WorkspaceTree.ids`).
    ids: Mapping[str, Callable[[WorkspaceTree], str]] = field(default_factory=dict[str, Any])
    #: Statuses that do not follow from the least role; the reason is beside the row.
    but: Mapping[Actor, int] = field(default_factory=dict[Actor, int])


TRASHED = {"node_id": lambda place: place.trashed}
#: Only the owner sees nodes that the owner trashed.
HIDDEN = {actor: 401 if actor in NAMELESS else 404 for actor in OTHERS}

#: Every route of the workspace, under ``/api/v1``.
ROWS: Mapping[str, Row] = {
    "POST /nodes": Row(
        least=EDITOR, done=201, body=lambda at: {"kind": "folder", "title": "new", "parent_id": at.folder}
    ),
    "GET /nodes": Row(least=VIEWER, params=lambda at: {"parent_id": at.folder}),
    "GET /nodes/tree": Row(least=VIEWER, params=lambda at: {"root_id": at.folder}),
    "GET /nodes/{node_id}": Row(least=VIEWER),
    "GET /nodes/{node_id}/children": Row(least=VIEWER),
    "PATCH /nodes/{node_id}": Row(least=EDITOR, body=lambda _: {"title": "changed"}),
    "POST /nodes/{node_id}/move": Row(least=EDITOR, body=lambda at: {"parent_id": at.other_folder}),
    "DELETE /nodes/{node_id}": Row(least=EDITOR, done=204, once=True),
    "GET /trash": Row(least=SIGNED_IN),
    "POST /nodes/{node_id}/restore": Row(least=OWNER, once=True, ids=TRASHED, but=HIDDEN),
    "DELETE /nodes/{node_id}/purge": Row(least=OWNER, done=204, once=True, ids=TRASHED, but=HIDDEN),
    "POST /studies": Row(
        least=EDITOR, done=201, body=lambda at: {"title": uuid4().hex, "parent_id": at.folder}
    ),
    "GET /studies/{study_id}": Row(least=VIEWER),
    "PATCH /studies/{study_id}": Row(least=EDITOR, body=lambda _: {"description": "changed"}),
    "GET /studies/{study_id}/export": Row(least=VIEWER),
    "GET /studies/{study_id}/chapters/{chapter_id}": Row(least=VIEWER),
    "POST /studies/{study_id}/chapters/{chapter_id}/moves": Row(
        least=EDITOR, done=201, once=True, body=lambda _: {"after": "e2e4", "move": "d7d5"}
    ),
    "DELETE /studies/{study_id}/chapters/{chapter_id}/moves/{move_path}": Row(
        least=EDITOR, done=204, once=True
    ),
    "PUT /studies/{study_id}/chapters/{chapter_id}/moves/{move_path}/annotation": Row(
        least=EDITOR, body=lambda _: {"text": "!"}
    ),
    "POST /studies/{study_id}/chapters/{chapter_id}/variations/{move_path}/promote": Row(
        least=EDITOR, once=True
    ),
    "POST /studies/{study_id}/chapters/{chapter_id}/variations/{move_path}/demote": Row(
        least=EDITOR, once=True, ids={"move_path": lambda _: "e2e4.e7e5"}
    ),
    "GET /studies/{study_id}/versions": Row(least=VIEWER),
    "POST /studies/{study_id}/versions": Row(least=EDITOR, done=201, body=lambda _: {}),
    "GET /studies/{study_id}/versions/{number}": Row(least=VIEWER),
    "GET /studies/{study_id}/versions/{number}/diff": Row(
        least=VIEWER, params=lambda _: {"against": "current"}
    ),
    "POST /studies/{study_id}/rollback": Row(least=EDITOR, done=201, body=lambda _: {"version": 1}),
    "POST /studies/import-pgn": Row(
        least=EDITOR,
        done=201,
        body=lambda at: {"pgn": PGN, "title": uuid4().hex, "parent_id": at.folder},
    ),
    "POST /studies/{study_id}/import-pgn": Row(least=EDITOR, done=201, body=lambda _: {"pgn": PGN}),
    "POST /export": Row(least=VIEWER, done=202, body=lambda at: {"node_id": at.folder}),
    "GET /tasks/{task_id}": Row(least=VIEWER),
    # The exported content is readable by the owner.
    "GET /tasks/{task_id}/result": Row(
        least=OWNER, but={actor: 401 if actor in NAMELESS - {Actor.LINK} else 404 for actor in OTHERS}
    ),
    "GET /share/{node_id}": Row(least=ADMIN),
    "POST /share/{node_id}/users": Row(
        least=ADMIN, done=201, once=True, body=lambda _: {"user_id": "new", "role": "editor"}
    ),
    "PUT /share/{node_id}/users/{user_id}": Row(least=ADMIN, body=lambda _: {"role": "editor"}),
    "DELETE /share/{node_id}/users/{user_id}": Row(least=ADMIN, done=204, once=True),
    "POST /share/{node_id}/links": Row(least=ADMIN, done=201, body=lambda _: {"role": "viewer"}),
    "DELETE /share/links/{link_id}": Row(least=ADMIN, done=204, once=True),
    "GET /nodes/{node_id}/activity": Row(least=VIEWER),
    # An id that the stream has not reached, so that the response ends at once.
    "GET /nodes/{node_id}/events": Row(least=VIEWER, params=lambda _: {"after": 2**31 - 1}),
    # A ticket cannot replace a link, which a browser could not send either.
    "POST /nodes/{node_id}/stream-ticket": Row(least=VIEWER, done=201, but={Actor.LINK_AND_TOKEN: 404}),
    "GET /shared-with-me": Row(least=SIGNED_IN),
    # Searches the target of the link.
    "GET /search": Row(least=SIGNED_IN, params=lambda _: {"q": "x"}, but={Actor.LINK: 200}),
    "GET /links/{token}": Row(least=PUBLIC),
    "POST /links/{token}/open": Row(least=PUBLIC, body=lambda _: {}),
    "POST /discussions": Row(
        least=COMMENTER, done=201, body=lambda at: {"target": at.folder, "kind": "note", "body": "?"}
    ),
    "GET /discussions": Row(least=VIEWER, params=lambda at: {"target_id": at.folder}),
    "GET /discussions/{thread_id}": Row(least=VIEWER),
    # Also allowed for the author, here the owner.
    "PATCH /discussions/{thread_id}": Row(least=EDITOR, body=lambda _: {"pinned": True}),
    "DELETE /discussions/{thread_id}": Row(least=EDITOR, done=204, once=True),
    "POST /discussions/{thread_id}/replies": Row(least=COMMENTER, done=201, body=lambda _: {"body": "!"}),
    "PATCH /replies/{reply_id}": Row(least=ADMIN, body=lambda _: {"body": "changed"}),
    "DELETE /replies/{reply_id}": Row(least=ADMIN, done=204, once=True),
    "GET /replies/{reply_id}/history": Row(least=VIEWER),
    "PUT /replies/{reply_id}/reactions/{emoji}": Row(least=COMMENTER, done=204),
    "DELETE /replies/{reply_id}/reactions/{emoji}": Row(least=COMMENTER, done=204),
}


def by_contract(route: str, row: Row, actor: Actor) -> int:
    """Return 401 without a needed token, 404 for strangers, 403 for readers, else the route's status."""
    if actor in row.but:
        return row.but[actor]
    if row.least == PUBLIC:
        return row.done
    reads = route.startswith("GET ")
    if actor is Actor.ANONYMOUS or (actor in NAMELESS and (not reads or row.least == SIGNED_IN)):
        return 401
    if row.least == SIGNED_IN:
        return row.done
    role = ROLES.get(actor)
    if role is None:
        return 404
    if role.rank >= Role(row.least).rank:
        return row.done
    return 401 if actor in NAMELESS else 403


def asked(cast: Actors, route: str, row: Row, actor: Actor) -> httpx.Response:
    """Send the request as *actor*; create objects again that a successful request deleted."""
    method, _, template = route.partition(" ")
    place = cast.tree_of(actor)
    usual = place.ids()
    names = re.findall(r"{(\w+)}", template)
    ids = {name: row.ids[name](place) if name in row.ids else usual[name]() for name in names}
    answer = cast.request(
        actor,
        method,
        template.format_map({name: quote(one, safe="") for name, one in ids.items()}),
        json=row.body(place),
        params=row.params(place),
        headers={"If-Match": "*"},
    )
    if answer.is_success and row.once:
        place.reset()
    return answer


@pytest.fixture(scope="module")
def cast(product: Product) -> Iterator[Actors]:
    actors = Actors(product)
    yield actors
    actors.close()


@pytest.fixture(scope="module")
def answers(cast: Actors) -> Mapping[str, Mapping[Actor, int]]:
    """Return the status of every route for every actor."""
    return {
        route: {actor: asked(cast, route, row, actor).status_code for actor in Actor}
        for route, row in ROWS.items()
    }


def test_each_documented_route_has_a_row(product: Product) -> None:
    document = httpx.get(f"{product.environment['API_URL']}/openapi.json", trust_env=False).json()
    routes = {
        f"{method.upper()} {path.removeprefix(PREFIX)}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "Workspace" in operation["tags"]
    }
    assert routes == set(ROWS)


@pytest.mark.guarantee("G81")
@pytest.mark.parametrize("route", ROWS)
def test_route_answers_each_role_by_the_contract(
    answers: Mapping[str, Mapping[Actor, int]], route: str
) -> None:
    assert answers[route] == {actor: by_contract(route, ROWS[route], actor) for actor in Actor}


def test_page_shows_the_status_for_each_role(answers: Mapping[str, Mapping[Actor, int]]) -> None:
    """A failure rewrites the page: review the difference and commit it."""
    lines = [f"| route | {' | '.join(Actor)} |", f"|---|{'---|' * len(Actor)}"]
    lines += [
        f"| `{route}` | {' | '.join(str(one[actor]) for actor in Actor)} |" for route, one in answers.items()
    ]
    before = PAGE.read_text()
    head, mark, _ = before.partition("<!-- the table of test_access.py -->\n")
    told = f"{head}{mark}\n" + "\n".join(lines) + "\n"
    if told != before:
        PAGE.write_text(told)
    assert told == before
