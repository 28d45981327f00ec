"""Clients that send the head of a request and no body: the API serves others and ends the wait."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2 as httpx
import pytest
from relaybox.db import Database
from relaybox.settings import HttpSettings, PostgresSettings

from tests.fixtures.http_serving import raw_connection, request_head, serve_app
from tests.fixtures.studio import PREFIX, Person, Studio, open_studio

POOL_SIZE = 2
#: One request to each route with a body: more requests than the pool has connections.
ROUTES = (
    ("PATCH", "/nodes/{node}"),
    ("POST", "/nodes/{node}/move"),
    ("POST", "/studies/{node}/chapters/{chapter}/moves"),
    ("PUT", "/studies/{node}/chapters/{chapter}/moves/0/annotation"),
    ("POST", "/studies/{node}/versions"),
    ("POST", "/studies/{node}/rollback"),
    ("POST", "/studies/{node}/import-pgn"),
    ("POST", "/discussions"),
    ("POST", "/share/{node}/users"),
    ("POST", "/share/{node}/links"),
    ("DELETE", "/nodes/{node}"),
)
KEYS = pytest.mark.parametrize("key", [{}, {"Idempotency_Key": "k"}], ids=["no key", "keyed"])


@asynccontextmanager
async def served_studio(
    settings: PostgresSettings, http: HttpSettings | None = None
) -> AsyncIterator[tuple[Studio, int]]:
    """Serve a studio with a small pool; return it with the port."""
    small = settings.model_copy(update={"pool_size": POOL_SIZE})
    database = Database(small, application_name="slow clients")
    async with open_studio(database, http) as studio, serve_app(studio.app) as port:
        yield studio, port
    await database.close()


def unfinished(studio: Studio, method: str, path: str, **headers: str) -> str:
    """Return a head that announces a body and asks for "100 Continue"."""
    sender = studio.teacher.headers()
    told = {"Content_Type": "application/json", "Content_Length": "100", "Expect": "100-continue"}
    return request_head(method, PREFIX + path, **told, **sender, **headers)


@pytest.mark.guarantee("G83")
@KEYS
async def test_requests_without_their_body_hold_no_connection(
    postgres_settings: PostgresSettings, key: dict[str, str]
) -> None:
    async with served_studio(postgres_settings) as (studio, port), AsyncExitStack() as slow:
        teacher = studio.teacher
        study = await teacher.call("POST", "/studies", {"title": "Endgames"})
        await teacher.call("POST", f"/studies/{study['id']}/import-pgn", {"pgn": "1. e4 e5 *"})
        detail = await teacher.call("GET", f"/studies/{study['id']}")
        ids = {"node": study["id"], "chapter": detail["chapters"][0]["id"]}
        for method, path in ROUTES:
            client = await slow.enter_async_context(raw_connection(port))
            await client.send(unfinished(studio, method, path.format(**ids), **key))
            assert await client.status() == 100, path
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            other = Person(http, "teacher")
            await other.call("GET", f"/nodes/{ids['node']}")
            await other.call("POST", "/nodes", {"kind": "folder", "title": "Meanwhile"})


@pytest.mark.guarantee("G83")
@KEYS
async def test_body_that_does_not_arrive_is_408(
    postgres_settings: PostgresSettings, key: dict[str, str]
) -> None:
    hasty = HttpSettings(body_timeout_s=0.05)
    async with served_studio(postgres_settings, hasty) as (studio, port), raw_connection(port) as client:
        node = await studio.teacher.node("folder")
        await client.send(unfinished(studio, "PATCH", f"/nodes/{node['id']}", **key))
        assert (await client.status(), await client.status()) == (100, 408)
        assert b'"BODY_TIMEOUT"' in await client.rest()
        # The key is unused.
        headers = {name.replace("_", "-"): value for name, value in key.items()}
        await studio.teacher.call("PATCH", f"/nodes/{node['id']}", {"title": "x"}, match=1, headers=headers)
