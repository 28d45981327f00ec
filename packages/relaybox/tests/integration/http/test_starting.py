"""Settings are read at the start of an application, never when its module is imported."""

import asyncio
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import httpx2 as httpx
import pytest
from pydantic import SecretStr
from relaybox.errors import SettingsError
from relaybox.http import make_token
from relaybox.settings import JwtSettings, PostgresSettings
from starlette.types import Message

from tests.fixtures.processes import server_environment

_EXAMPLE = Path(__file__).parents[5] / "examples/orders"
_SECRET = "a secret of 32 bytes at the least"
_LINES_MAX = 12


def imported() -> ModuleType:
    """Import the orders example as its server, its tests or Alembic do."""
    spec = importlib.util.spec_from_file_location("orders_imported", _EXAMPLE / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POSTGRES_PORT", "OUTBOX_MESSAGE_BYTES_MAX", "IDEMPOTENCY_TTL_H", "RETENTION_TASKS_H"):
        monkeypatch.setenv(name, "many")
    monkeypatch.delenv("JWT_SECRET", raising=False)


@pytest.mark.usefixtures("malformed")
def test_importing_an_application_reads_no_setting() -> None:
    assert "/orders" in imported().app.openapi()["paths"]


@pytest.mark.usefixtures("malformed")
async def test_start_prints_a_line_for_every_invalid_setting() -> None:
    app = imported().app
    with pytest.raises(SettingsError) as raised:
        await app.router.lifespan_context(app).__aenter__()
    names = [line.partition(":")[0] for line in str(raised.value).splitlines()]
    assert names == [
        "POSTGRES_PORT",
        "JWT_SECRET",
        "OUTBOX_MESSAGE_BYTES_MAX",
        "IDEMPOTENCY_TTL_H",
        "RETENTION_TASKS_H",
    ]


async def test_invalid_setting_of_a_middleware_stops_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IDEMPOTENCY_TTL_H", "many")
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(SettingsError):
        await imported().app({"type": "lifespan"}, receive, send)
    [failed] = sent
    assert failed["type"] == "lifespan.startup.failed"
    assert failed["message"].startswith("IDEMPOTENCY_TTL_H: ")


async def test_settings_changed_after_the_import_are_used(
    postgres_settings: PostgresSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = imported().app
    for name, value in {**server_environment(postgres_settings), "JWT_SECRET": _SECRET}.items():
        monkeypatch.setenv(name, value)
    token = make_token(JwtSettings(secret=SecretStr(_SECRET)), "ada")
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        headers = {"Authorization": f"Bearer {token}"}
        placed = await client.post("/orders", json={"item": "tea", "ordered": 1}, headers=headers)
    assert placed.status_code == 201


async def test_plain_uvicorn_prints_invalid_settings_without_a_traceback() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "JWT_SECRET"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "app:app", "--port", "0"),
        cwd=_EXAMPLE,
        env={**environment, "POSTGRES_PORT": "many"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode not in (0, None), output
    assert "POSTGRES_PORT: Input should be a valid integer" in output
    assert "\nJWT_SECRET: Field required\n" in output
    assert "Traceback" not in output
    assert len(output.splitlines()) <= _LINES_MAX
