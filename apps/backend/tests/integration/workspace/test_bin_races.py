"""Concurrent writes and trashing: the second transaction sees the changes of the first."""

import asyncio
from typing import Any

import asyncpg
import httpx2 as httpx

from tests.fixtures.gates import Gate, closed_gate, wait_for_row_lock_waiter
from tests.fixtures.studio import Studio

#: A transaction that is about to insert this event has acquired all its locks.
_TRASHING = "NEW.event_type = 'node.trashed'"
_CREATING = "NEW.event_type = 'node.created' AND NEW.payload ->> 'parent_id' IS NOT NULL"


async def test_node_is_not_created_in_a_folder_that_is_trashed_meanwhile(
    studio: Studio, superuser: asyncpg.Connection
) -> None:
    root = await studio.teacher.node("workspace")
    outer = await studio.teacher.node("folder", parent=root)
    inner = await studio.teacher.node("folder", parent=outer)
    body = {"kind": "study", "title": "late", "parent_id": inner["id"]}
    async with closed_gate(superuser, Gate("INSERT", "domain_events", _TRASHING)) as gate:
        trashing = asyncio.create_task(studio.teacher.call("DELETE", f"/nodes/{outer['id']}", match=1))
        await gate.wait_until_reached()
        creating = asyncio.create_task(studio.teacher.error_code(404, "POST", "/nodes", body))
        await wait_for_row_lock_waiter(superuser)
        await gate.open()
        await trashing
        assert await creating == "NODE_NOT_FOUND"
    [batch] = (await studio.teacher.call("GET", "/trash"))["items"]
    assert batch["count"] == 2


async def test_node_created_before_the_trashing_is_part_of_the_batch(
    studio: Studio, superuser: asyncpg.Connection
) -> None:
    root = await studio.teacher.node("workspace")
    outer = await studio.teacher.node("folder", parent=root)
    inner = await studio.teacher.node("folder", parent=outer)
    async with closed_gate(superuser, Gate("INSERT", "domain_events", _CREATING)) as gate:
        creating = asyncio.create_task(studio.teacher.node("folder", parent=inner))
        await gate.wait_until_reached()
        trashing = asyncio.create_task(studio.teacher.call("DELETE", f"/nodes/{outer['id']}", match=1))
        await wait_for_row_lock_waiter(superuser)
        await gate.open()
        await asyncio.gather(creating, trashing)
    [batch] = (await studio.teacher.call("GET", "/trash"))["items"]
    assert batch["count"] == 3


async def test_restore_uses_the_next_ancestor_if_the_first_is_trashed_meanwhile(
    studio: Studio, superuser: asyncpg.Connection
) -> None:
    """The restore succeeds without 503 and without waiting for the trashed node."""
    root = await studio.teacher.node("workspace")
    folder = await studio.teacher.node("folder", parent=root)
    study = await in_bin(studio, folder)
    restored = (await restored_while_trashing(studio, superuser, study, folder)).json()
    assert (restored["restored_to"], restored["fallback"]) == (root["id"], True)


async def test_restore_to_an_unlocked_tree_must_be_retried(
    studio: Studio, superuser: asyncpg.Connection
) -> None:
    """A transaction with the lock of one tree waits for no other tree, which could cause a deadlock."""
    root, other = [await studio.teacher.node("workspace") for _ in range(2)]
    outer = await studio.teacher.node("folder", parent=root)
    inner = await studio.teacher.node("folder", parent=outer)
    study = await in_bin(studio, inner)
    await moved(studio, inner, other)
    answer = await restored_while_trashing(studio, superuser, study, inner)
    assert (answer.status_code, answer.json().get("error_code")) == (503, "RETRY_TRANSACTION")
    assert await restored_to(studio, study) == outer["id"]


async def test_restore_uses_the_next_ancestor_if_the_first_is_in_another_tree(
    studio: Studio, superuser: asyncpg.Connection
) -> None:
    root, other = [await studio.teacher.node("workspace") for _ in range(2)]
    outer = await studio.teacher.node("folder", parent=root)
    middle = await studio.teacher.node("folder", parent=outer)
    inner = await studio.teacher.node("folder", parent=middle)
    study = await in_bin(studio, inner)
    await moved(studio, inner, other)
    await studio.teacher.call("DELETE", f"/nodes/{inner['id']}", match="*")
    answer = await restored_while_trashing(studio, superuser, study, middle)
    assert (answer.status_code, answer.json().get("restored_to")) == (200, outer["id"])


async def in_bin(studio: Studio, folder: Any) -> Any:
    """Create a study in *folder* and trash it."""
    study = await studio.teacher.node("study", parent=folder)
    await studio.teacher.call("DELETE", f"/nodes/{study['id']}", match=1)
    return study


async def moved(studio: Studio, node: Any, parent: Any) -> None:
    body = {"parent_id": parent["id"]}
    await studio.teacher.call("POST", f"/nodes/{node['id']}/move", body, match="*")


async def restored_to(studio: Studio, node: Any) -> str:
    return (await studio.teacher.call("POST", f"/nodes/{node['id']}/restore"))["restored_to"]


async def restored_while_trashing(
    studio: Studio, superuser: asyncpg.Connection, node: Any, place: Any
) -> httpx.Response:
    """Return the response to the restore of *node*, which waits for *place* while that is trashed."""
    async with closed_gate(superuser, Gate("INSERT", "domain_events", _TRASHING)) as gate:
        trashing = asyncio.create_task(studio.teacher.call("DELETE", f"/nodes/{place['id']}", match="*"))
        await gate.wait_until_reached()
        restoring = asyncio.create_task(studio.teacher.send("POST", f"/nodes/{node['id']}/restore"))
        await wait_for_row_lock_waiter(superuser)
        await gate.open()
        await trashing
        return await restoring


async def test_one_of_two_concurrent_trashings_or_restores_succeeds(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    node = await studio.teacher.node("folder", parent=root)
    for method, path, code in (
        ("DELETE", f"/nodes/{node['id']}", "NODE_TRASHED"),
        ("POST", f"/nodes/{node['id']}/restore", "NODE_NOT_TRASHED"),
    ):
        answers = await asyncio.gather(*(studio.teacher.send(method, path, match="*") for _ in range(4)))
        assert sorted(answer.is_success for answer in answers) == [False, False, False, True]
        assert {one.json()["error_code"] for one in answers if not one.is_success} == {code}
    assert [event.type for event in await studio.stream(node["id"])] == [
        "node.created",
        "node.trashed",
        "node.restored",
    ]


async def test_only_one_of_two_studies_with_one_title_is_restored(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    studies = []
    for _ in range(2):
        studies.append(await studio.teacher.node("study", "Endgames", root))
        await studio.teacher.call("DELETE", f"/nodes/{studies[-1]['id']}", match=1)
    answers = await asyncio.gather(
        *(studio.teacher.send("POST", f"/nodes/{one['id']}/restore") for one in studies),
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_concurrent_trashings_and_restores_do_not_deadlock(studio: Studio) -> None:
    """Batches are trashed and restored while their folder is filled, renamed, trashed and restored."""
    root = await studio.teacher.node("workspace")
    folder = await studio.teacher.node("folder", parent=root)
    studies = [await studio.teacher.node("study", parent=folder) for _ in range(3)]
    path, below = f"/nodes/{folder['id']}", {"kind": "folder", "title": "x", "parent_id": folder["id"]}
    for _ in range(3):
        answers = await asyncio.gather(
            *(studio.teacher.send("DELETE", f"/nodes/{one['id']}", match="*") for one in studies),
            *(studio.teacher.send("POST", f"/nodes/{one['id']}/restore") for one in studies),
            studio.teacher.send("DELETE", path, match="*"),
            studio.teacher.send("POST", f"{path}/restore"),
            studio.teacher.send("PATCH", path, {"title": "new"}, match="*"),
            studio.teacher.send("POST", "/nodes", below),
        )
        assert {answer.status_code for answer in answers} <= {200, 201, 204, 404, 409}
