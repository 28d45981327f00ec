"""The log of a plain ``uvicorn app:app``: a process of the orders example with a decider that raises."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2 as httpx
from pydantic import SecretStr
from relaybox.http import make_token
from relaybox.settings import JwtSettings, PostgresSettings

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.processes import server_environment

_EXAMPLE = Path(__file__).parents[5] / "examples/orders/app.py"
_SECRET = "a secret of 32 bytes at the least"
_TOKEN = make_token(JwtSettings(secret=SecretStr(_SECRET)), "ada")
_KEY = "key-5f0c9a1e-7d3b"
_TICKET = "ticket-9c1d7e55f2aa4b10"
_ITEM = "darjeeling-0451"
_REQUESTS = 3
_LINES_MAX = 60
_OWN_LOGGING = """
import logging
logging.basicConfig(level="INFO", format="mine %(levelname)s %(name)s %(message)s")
"""


class Server:
    """A running uvicorn, whose output is read continuously, because a full pipe would stop it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines: list[str] = []
        self._url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._lines.append(line.decode())
            found = re.search(r"http://127\.0\.0\.1:\d+", self._lines[-1])
            if found and not self._url.done():
                self._url.set_result(found[0])
        if not self._url.done():
            self._url.set_exception(AssertionError("".join(self._lines)))

    async def url(self) -> str:
        """Return its address when it has logged that it listens."""
        return await self._url

    async def stop(self) -> str:
        """Stop it and return all of its output."""
        self._process.send_signal(signal.SIGTERM)
        await self._reading
        await self._process.wait()
        return "".join(self._lines)


@asynccontextmanager
async def serving(place: Path, postgres: PostgresSettings, preamble: str = "") -> AsyncIterator[Server]:
    """Run ``uvicorn app:app`` with an orders example whose only decider raises."""
    source = _EXAMPLE.read_text(encoding="utf-8")
    works, breaks = "return [CREATED(command.model_dump())]", 'raise RuntimeError("broken on purpose")'
    broken = source.replace(works, breaks)
    assert broken != source
    (place / "app.py").write_text(preamble + broken, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "app:app", "--port", "0"),
        cwd=place,
        env={**os.environ, **server_environment(postgres), "JWT_SECRET": _SECRET},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(WAIT_S):
            yield Server(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def provoke(server: Server) -> None:
    """Send requests that end in an exception, and one with a ticket in its query."""
    headers = {"Authorization": f"Bearer {_TOKEN}"}
    async with httpx.AsyncClient(base_url=await server.url(), headers=headers, timeout=WAIT_S) as client:
        for number in range(_REQUESTS):
            sent = await client.post(
                "/orders",
                json={"item": _ITEM, "ordered": 1},
                headers={"Idempotency-Key": f"{_KEY}-{number}"},
            )
            assert (sent.status_code, sent.json()["error_code"]) == (500, "INTERNAL_ERROR")
        stream = f"/orders/5f0c9a1e-7d3b-4e55-9c1d-7e55f2aa4b10/events?ticket={_TICKET}"
        assert (await client.get(stream)).status_code == 401


def check_nothing_leaked(output: str) -> None:
    for secret in (_TOKEN, _TOKEN.rpartition(".")[2], _KEY, _TICKET, _ITEM):
        assert output.count(secret) == 0, secret
    assert output.count("RuntimeError: broken on purpose") == _REQUESTS
    assert output.count("Traceback (most recent call last)") == _REQUESTS


async def test_plain_uvicorn_logs_no_token_key_or_local_variable(
    postgres_settings: PostgresSettings, tmp_path: Path
) -> None:
    async with serving(tmp_path, postgres_settings) as server:
        await provoke(server)
        output = await server.stop()
    check_nothing_leaked(output)
    assert len(output.splitlines()) <= _LINES_MAX
    assert "Application shutdown complete" in output


async def test_plain_uvicorn_keeps_an_applications_own_logging(
    postgres_settings: PostgresSettings, tmp_path: Path
) -> None:
    async with serving(tmp_path, postgres_settings, _OWN_LOGGING) as server:
        await provoke(server)
        output = await server.stop()
    check_nothing_leaked(output)
    logger = r"relaybox\.http\._error_responses"
    failures = re.findall(rf"^mine ERROR {logger} http\.unexpected", output, re.MULTILINE)
    assert len(failures) == _REQUESTS
    assert re.search(
        r"^mine INFO relaybox\.http\._requests http\.request .*route=/orders ", output, re.MULTILINE
    )
