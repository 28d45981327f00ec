"""The code of the page about idempotent requests, and of the README, works as documented."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx2 as httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from relaybox.db import Database
from relaybox.http import IdempotencyMiddleware, idempotent
from relaybox.idempotency import IdempotencyService
from relaybox.local import free_port
from relaybox.settings import PostgresSettings
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.marks import needs_curl
from tests.fixtures.processes import server_environment
from tests.unit.test_docs import fences

ROOT = Path(__file__).parents[2]
KEY = {"Idempotency-Key": "k"}
Names = dict[str, Any]


class Payment(BaseModel):
    amount: int


@pytest.fixture
async def page(
    postgres_settings: PostgresSettings, superuser: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Names]:
    """Return the names that the twenty lines of the page define, run on the database of the test."""
    await superuser.execute(
        "CREATE TABLE orders (id INT GENERATED ALWAYS AS IDENTITY, owner TEXT, article TEXT);"
        "GRANT ALL ON orders TO PUBLIC"
    )
    for name in ("host", "port", "db", "user"):
        monkeypatch.setenv(f"POSTGRES_{name.upper()}", str(getattr(postgres_settings, name)))
    monkeypatch.setenv("POSTGRES_PASSWORD", postgres_settings.password.get_secret_value())
    names: Names = {"idempotent": idempotent, "Payment": Payment, "AsyncSession": AsyncSession, "Any": Any}
    names |= {"IdempotencyService": IdempotencyService}
    run(fences_of("docs/how-to/idempotent-requests.md")[0], names)
    yield names
    await names["database"].close()


def fences_of(page: str) -> list[str]:
    return list(fences(ROOT / page, "python"))


def run(block: str, names: Names) -> None:
    exec(compile(block, "page", "exec", dont_inherit=True), names)


async def ordered_twice(app: FastAPI) -> list[httpx.Response]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        headers = {**KEY, "X-User": "ann"}
        return [await client.post("/orders", json={"article": "tea"}, headers=headers) for _ in range(2)]


async def test_twenty_lines_make_an_endpoint_idempotent(page: Names, superuser: asyncpg.Connection) -> None:
    first, again = await ordered_twice(page["app"])
    assert (first.status_code, first.json()) == (201, {"id": 1})
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    assert await superuser.fetchval("SELECT count(*) FROM orders") == 1


@needs_curl
async def test_shell_block_installs_and_orders_once(
    postgres_settings: PostgresSettings, superuser: asyncpg.Connection, tmp_path: Path
) -> None:
    page, owner = ROOT / "docs/how-to/idempotent-requests.md", postgres_settings.as_owner()
    (tmp_path / "shop.py").write_text(fences_of("docs/how-to/idempotent-requests.md")[0], encoding="utf-8")
    port = str(free_port())
    script = "\n".join(fences(page, "sh")).replace("8030", port)
    environment = server_environment(postgres_settings) | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "POSTGRES_OWNER_USER": owner.user,
        "POSTGRES_OWNER_PASSWORD": owner.password.get_secret_value(),
    }
    # Job control, as in an interactive shell.
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-em"), stdin=PIPE, stdout=PIPE, env=environment, cwd=tmp_path
    )
    async with asyncio.timeout(WAIT_S):
        shown, _ = await shell.communicate(script.encode())
    assert shown.decode().splitlines()[-2:] == ['{"id":1}'] * 2
    assert await superuser.fetchval("SELECT count(*) FROM orders") == 1


async def test_readme_endpoint_is_idempotent(page: Names, superuser: asyncpg.Connection) -> None:
    page["app"] = FastAPI()
    page["app"].add_middleware(IdempotencyMiddleware)
    page["INSERT"] = text("INSERT INTO orders (owner, article) VALUES (:owner, :article) RETURNING id")
    run(fences_of("README.md")[1], page)
    first, again = await ordered_twice(page["app"])
    assert (first.json(), again.content) == ({"id": 1}, first.content)
    assert await superuser.fetchval("SELECT count(*) FROM orders") == 1


async def test_marked_endpoint_requires_a_key(page: Names) -> None:
    run(fences_of("docs/how-to/idempotent-requests.md")[1], page)
    transport = httpx.ASGITransport(page["app"])
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        refused = await client.post("/payments", json={"amount": 1}, headers={"X-User": "ann"})
    assert refused.json()["error_code"] == "IDEMPOTENCY_KEY_MISSING"


async def test_cache_mode_of_the_page_runs(page: Names, database: Database) -> None:
    async def service(_request: object) -> IdempotencyService:
        return IdempotencyService(database.sessions())

    async def principal_of(request: Any) -> str:
        return request.headers["x-user"]

    app = page["app"] = FastAPI()
    done: list[str] = []

    @app.post("/export")
    async def export() -> int:
        done.append("export")
        return len(done)

    page |= {"service": service, "principal_of": principal_of}
    run(fences_of("docs/how-to/idempotent-requests.md")[2], page)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        answers = [await client.post("/export", headers={**KEY, "X-User": "ann"}) for _ in range(2)]
    assert [answer.json() for answer in answers] == [1, 1]
    _ = export


async def test_manual_import_runs_once(page: Names, database: Database) -> None:
    done: list[bytes] = []

    async def import_lines(_session: AsyncSession, file: bytes) -> int:
        done.append(file)
        return len(file)

    page["import_lines"] = import_lines
    run(fences_of("docs/how-to/idempotent-requests.md")[3], page)
    for _ in range(2):
        async with database.sessions.begin() as session:
            assert await page["import_once"](session, b"abc") == {"lines": 3}
    assert done == [b"abc"]
