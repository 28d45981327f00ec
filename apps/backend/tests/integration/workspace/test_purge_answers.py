"""Stored responses are erased with the node that they are about, whatever route returned them."""

from typing import Any

import asyncpg

from tests.fixtures.studio import Studio
from tests.fixtures.table_contents import tables_containing

SECRET = "Najdorf-with-a-twist"


async def test_purge_erases_stored_responses_of_a_node(studio: Studio, superuser: asyncpg.Connection) -> None:
    """The text is only in stored responses when the rest of the node has been purged."""
    number = 0

    async def keyed(method: str, path: str, body: Any) -> Any:
        nonlocal number
        number += 1
        headers = {"Idempotency-Key": f"key-{number}"}
        return await studio.teacher.call(method, path, body, headers=headers, match="*")

    study = await keyed("POST", "/studies", {"title": SECRET})
    path = f"/studies/{study['id']}"
    await keyed("PATCH", path, {"description": SECRET})
    await keyed("POST", f"{path}/import-pgn", {"pgn": f'[White "{SECRET}"]\n\n1. e4 {{{SECRET}}} *'})
    thread = await keyed("POST", "/discussions", {"target": study["id"], "kind": "note", "body": SECRET})
    await keyed("PATCH", f"/discussions/{thread['id']}", {"title": SECRET})
    reply = await keyed("POST", f"/discussions/{thread['id']}/replies", {"body": SECRET})
    await keyed("PATCH", f"/replies/{reply['id']}", {"body": f"{SECRET}!"})
    assert (await tables_containing(superuser, SECRET))["idempotency_cache"] >= 6
    await studio.teacher.call("DELETE", f"/nodes/{study['id']}", match="*")
    await studio.teacher.call("DELETE", f"/nodes/{study['id']}/purge")
    assert await tables_containing(superuser, SECRET) == {}
