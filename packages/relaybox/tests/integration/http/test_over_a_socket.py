"""An application on a real server: large bodies, and clients that disconnect."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx2 as httpx
import pytest
from fastapi import Depends, FastAPI, Request
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from relaybox.http import Principal, SharedSecretVerifier, bearer, create_app, make_token, read_json
from relaybox.settings import JwtSettings
from relaybox.telemetry import serve_health
from structlog.testing import capture_logs

JWT = JwtSettings(secret=SecretStr("a secret of 32 bytes at the least"))
FIVE_MEGABYTES = 5 * 1024 * 1024


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
    yield


@pytest.fixture
def reading() -> asyncio.Event:
    """Set when the route begins to read a body."""
    return asyncio.Event()


@pytest.fixture
def ended() -> asyncio.Event:
    """Set when the application has processed a request."""
    return asyncio.Event()


@pytest.fixture
async def port(reading: asyncio.Event, ended: asyncio.Event) -> AsyncIterator[int]:
    app = create_app(title="t", version="1", lifespan=lifespan, checks={}, registry=CollectorRegistry())
    authenticate = bearer(SharedSecretVerifier(JWT))

    @app.post("/take")
    async def take(request: Request, _sender: Annotated[Principal, Depends(authenticate)]) -> Any:
        reading.set()
        return await read_json(request)

    async def announced(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        finally:
            ended.set()

    _ = take
    async with serve_health(announced, host="127.0.0.1", port=0) as bound:
        yield bound


@pytest.fixture
async def http(port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


def headers(token: str | None) -> dict[str, str]:
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(FIVE_MEGABYTES // 65_536):
        yield b" " * 65_536


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("known", "status"), [(False, 401), (True, 413)])
async def test_response_to_a_body_of_5_megabytes_is_received(
    http: httpx.AsyncClient, known: bool, status: int, chunked: bool
) -> None:
    token = make_token(JWT, "ann") if known else None
    content = pieces() if chunked else b" " * FIVE_MEGABYTES
    answer = await http.post("/take", content=content, headers=headers(token))
    assert answer.status_code == status
    again = await http.post("/take", content=b"1", headers=headers(make_token(JWT, "ann")))
    assert again.json() == 1


async def test_client_that_disconnects_in_its_body_is_no_error(
    port: int, reading: asyncio.Event, ended: asyncio.Event
) -> None:
    with capture_logs() as lines:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /take HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {make_token(JWT, 'ann')}\r\n"
        writer.write(head.encode() + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n[1,")
        await reading.wait()
        writer.close()
        await ended.wait()
    told = [line["event"] for line in lines if line["event"].startswith("http.")]
    assert told == ["http.client_disconnected", "http.request"]
    assert lines[-1]["status"] == 499


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"])
async def test_head_request_gets_the_response_of_get_without_a_body(port: int, path: str) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        looked, got = await http.head(path), await http.get(path)
    assert (looked.status_code, looked.content) == (200, b"")
    assert looked.headers["content-type"] == got.headers["content-type"]
