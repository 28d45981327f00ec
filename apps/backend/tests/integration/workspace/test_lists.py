"""Lists contain exactly the nodes that the requester may read one by one."""

from typing import Any

import pytest

from tests.fixtures.studio import Person, Studio


async def _forest(studio: Studio) -> tuple[Any, dict[str, Any]]:
    """Create a public tree with nested visibilities; some nodes have a grant, some a link."""
    root = await studio.teacher.node("workspace", visibility="public")
    nodes = {root["id"]: root}
    linked: dict[str, Any] = {}
    for outer_visibility in (None, "private", "shared"):
        outer = await studio.teacher.node("folder", parent=root, visibility=outer_visibility)
        nodes[outer["id"]] = outer
        for visibility in (None, "private", "shared", "public"):
            inner = await studio.teacher.node("folder", parent=outer, visibility=visibility)
            leaf = await studio.teacher.node("study", parent=inner)
            nodes |= {inner["id"]: inner, leaf["id"]: leaf}
            await studio.teacher.share(inner, "ada", "viewer")
            linked[inner["id"]] = await studio.teacher.link(inner, "viewer")
        linked[outer["id"]] = await studio.teacher.link(outer, "editor")
        await studio.teacher.share(outer, "bob", "editor")
    linked[root["id"]] = await studio.teacher.link(root, "commenter")
    return nodes, linked


async def _askers(studio: Studio, linked: dict[str, Any]) -> list[Person]:
    """Return requesters with and without a token, and with the share token of each link."""
    people = [studio.teacher, studio.stranger, studio.anonymous, studio.person("ada"), studio.person("bob")]
    guests = [
        await person.open_link(link)
        for link in linked.values()
        for person in (studio.anonymous, studio.person("ada"))
        if (await studio.anonymous.send("GET", f"/links/{link['token']}")).is_success
    ]
    return people + guests


@pytest.mark.guarantee("G81")
async def test_lists_contain_exactly_the_nodes_that_can_be_read(studio: Studio) -> None:
    nodes, linked = await _forest(studio)
    for asker in await _askers(studio, linked):
        read = {one for one in nodes if (await asker.send("GET", f"/nodes/{one}")).is_success}
        below = {one: {node for node in read if nodes[node]["parent_id"] == one} for one in nodes}
        for node in read:
            children = (await asker.call("GET", f"/nodes/{node}/children"))["items"]
            assert {one["id"] for one in children} == below[node], asker.name
            same = (await asker.call("GET", f"/nodes?parent_id={node}"))["items"]
            assert same == children
            tree = (await asker.call("GET", f"/nodes/tree?root_id={node}"))["items"]
            seen = {node}
            while len(more := seen.union(*(below[one] for one in seen))) > len(seen):
                seen = more
            assert {one["id"] for one in tree} == seen, asker.name
