"""Every route that reads a node responds 404 for a trashed node, whatever other parameters it has."""

import re
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from tests.fixtures.studio import PREFIX, Person, Studio

#: Names of the path and query parameters that take the id of a node.
NODE_NAMES = {"node_id", "study_id", "parent_id", "root_id", "target_id"}


@dataclass
class Reader:
    """A GET route with a parameter for a node."""

    path: str
    name: str
    in_path: bool
    #: Valid values for the other parameters of these routes.
    others: dict[str, str] = field(default_factory=dict[str, str])
    query: dict[str, str] = field(default_factory=dict[str, str])
    #: Excluded: a stream does not end while the node is live.
    ends: bool = True

    async def code(self, person: Person, node: Any) -> str:
        """Return the error code of the route's response for *node*; empty for a success."""
        given = {**self.others, self.name: node["id"]} if self.in_path else self.others
        query = self.query if self.in_path else {**self.query, self.name: node["id"]}
        answer = await person.send("GET", self.path.format(**given), params=query)
        if answer.is_success:
            return ""
        assert answer.status_code == 404 or answer.json()["error_code"] != "NODE_NOT_FOUND"
        return answer.json()["error_code"]


def readers_in(document: Any) -> list[Reader]:
    """Return every GET route of *document*, once for each parameter that takes a node."""
    found: list[Reader] = []
    for path, methods in document["paths"].items():
        operation = methods.get("get", {})
        declared = {one["name"]: one for one in operation.get("parameters", []) if one["in"] != "header"}
        # A parameter that a route parses from its path itself is in no list of parameters.
        in_path = set(re.findall(r"{(\w+)}", path))
        wanted = in_path | {name for name, one in declared.items() if one.get("required")}
        for name in NODE_NAMES & (in_path | declared.keys()) if operation else ():
            reader = Reader(path.removeprefix(PREFIX), name, name in in_path)
            reader.ends = "text/event-stream" not in operation["responses"]["200"].get("content", {})
            for other in wanted - {name}:
                is_number = declared.get(other, {}).get("schema", {}).get("type") == "integer"
                given = reader.others if other in in_path else reader.query
                given[other] = "1" if is_number else str(uuid4())
            found.append(reader)
    return found


async def test_trashed_node_is_404_on_every_route_that_reads_a_node(studio: Studio) -> None:
    readers = readers_in((await studio.http.get("/openapi.json")).json())
    root = await studio.teacher.node("workspace", visibility="public")
    folder = await studio.teacher.node("folder", parent=root)
    alone = await studio.teacher.node("study", parent=root)
    inside = await studio.teacher.node("study", parent=folder)
    live = {reader.path: await reader.code(studio.teacher, alone) for reader in readers if reader.ends}
    assert "NODE_NOT_FOUND" not in live.values(), live
    assert {"/nodes/{node_id}", "/nodes/{node_id}/children", "/nodes/tree", "/nodes"} <= live.keys()
    for node in (alone, folder):
        await studio.teacher.call("DELETE", f"/nodes/{node['id']}", match=1)
    for node in (alone, inside):
        for person in (studio.teacher, studio.stranger):
            codes = {reader.path: await reader.code(person, node) for reader in readers}
            assert set(codes.values()) == {"NODE_NOT_FOUND"}, codes


async def test_trashed_node_is_in_no_list_and_not_reachable_by_a_link(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    folder = await studio.teacher.node("folder", parent=root)
    inside = await studio.teacher.node("folder", parent=folder)
    for node in (folder, inside):
        body = {"user_id": "pupil", "role": "viewer"}
        await studio.teacher.call("POST", f"/share/{node['id']}/users", body)
    link = await studio.teacher.call("POST", f"/share/{inside['id']}/links", {"role": "viewer"})
    shared = (await studio.pupil.call("GET", "/shared-with-me"))["items"]
    assert {one["id"] for one in shared} == {folder["id"], inside["id"]}
    await studio.anonymous.call("GET", f"/links/{link['token']}")
    await studio.teacher.call("DELETE", f"/nodes/{folder['id']}", match=1)
    assert (await studio.pupil.call("GET", "/shared-with-me"))["items"] == []
    await studio.anonymous.error_code(404, "GET", f"/links/{link['token']}")
    await studio.anonymous.error_code(404, "POST", f"/links/{link['token']}/open", {})
    await studio.teacher.call("POST", f"/nodes/{folder['id']}/restore")
    await studio.anonymous.call("GET", f"/links/{link['token']}")
    assert len((await studio.pupil.call("GET", "/shared-with-me"))["items"]) == 2


async def test_user_of_a_link_sees_its_trashed_nodes_only_with_the_link(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    folder = await studio.teacher.node("folder", parent=root)
    link = await studio.teacher.call("POST", f"/share/{root['id']}/links", {"role": "editor"})
    opened = await studio.anonymous.call("POST", f"/links/{link['token']}/open", {})
    ticket = {"X-Share-Token": opened["share_token"]}
    await studio.pupil.call("DELETE", f"/nodes/{folder['id']}", match=1, headers=dict(ticket))
    assert (await studio.pupil.call("GET", "/trash"))["items"] == []
    [seen] = (await studio.pupil.call("GET", "/trash", headers=dict(ticket)))["items"]
    assert (seen["id"], seen["former_parent"]["title"]) == (folder["id"], "Club")
    path = f"/nodes/{folder['id']}/restore"
    assert await studio.pupil.error_code(404, "POST", path) == "NODE_NOT_FOUND"
    await studio.pupil.call("POST", path, headers=dict(ticket))
