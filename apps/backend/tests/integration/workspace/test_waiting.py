"""Concurrent writers of one tree wait for each other and never deadlock."""

import asyncio

import httpx2 as httpx

from tests.fixtures.studio import Studio


def statuses(answers: list[httpx.Response]) -> set[int]:
    return {answer.status_code for answer in answers}


async def test_many_nodes_are_created_below_a_root_concurrently(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    bodies = [{"kind": "folder", "title": str(one), "parent_id": root["id"]} for one in range(10)]
    answers = await asyncio.gather(*(studio.teacher.send("POST", "/nodes", body) for body in bodies))
    assert statuses(answers) == {201}
    children = await studio.teacher.call("GET", f"/nodes/{root['id']}/children")
    assert [one["position"] for one in children["items"]] == [*range(10)]


async def test_folder_is_filled_renamed_and_moved_concurrently(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    for _ in range(5):
        folder = await studio.teacher.node("folder", parent=root)
        path, inside = f"/nodes/{folder['id']}", {"kind": "folder", "parent_id": folder["id"]}
        answers = await asyncio.gather(
            *(studio.teacher.send("POST", "/nodes", {**inside, "title": str(one)}) for one in range(4)),
            *(studio.teacher.send("PATCH", path, {"title": str(one)}, match="*") for one in range(3)),
            studio.teacher.send("POST", f"{path}/move", {"parent_id": root["id"]}, match="*"),
        )
        assert statuses(answers) == {200, 201}
