"""Cache mode: endpoints without a unit of work, in any FastAPI or Starlette application."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Annotated, Any

import httpx2 as httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Response
from relaybox.db import Database
from relaybox.errors import RelayboxError
from relaybox.http import (
    ERROR_TABLE,
    ErrorResponse,
    IdempotencyMiddleware,
    UnitOfWork,
    idempotent,
    unit_of_work,
)
from relaybox.http._error_responses import install_error_handlers
from relaybox.idempotency import IdempotencyService
from relaybox.settings import IdempotencySettings
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from structlog.testing import capture_logs

from tests.fixtures.bounds import WAIT_S

KEY = {"Idempotency-Key": "k"}
Connect = Callable[..., Any]


class Work:
    """An endpoint that counts its executions and responds with the number."""

    def __init__(self) -> None:
        self.done = 0
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()

    async def do(self) -> dict[str, int]:
        self.done += 1
        self.reached.set()
        await self.go_on.wait()
        return {"done": self.done}


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def connect(database: Database) -> Connect:
    """``async with connect(app, prefixes=…) as client``: on PostgreSQL, with the user in a header."""

    async def service(_request: Request) -> IdempotencyService:
        return IdempotencyService(database.sessions(), settings=IdempotencySettings(body_bytes_max=1_000))

    async def principal(request: Request) -> str | None:
        return request.headers.get("x-user")

    @asynccontextmanager
    async def connected(app: Starlette, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
        app.add_middleware(
            IdempotencyMiddleware,
            idempotency_service_factory=service,
            principal=principal,
            settings=IdempotencySettings(body_bytes_max=1_000),
            **options,
        )
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://app",
            headers={"X-User": "ann"},
        ) as client:
            yield client

    return connected


def fastapi_app(work: Work) -> FastAPI:
    app = FastAPI()

    @app.post("/work", status_code=201)
    @app.post("/works", status_code=201)
    @app.delete("/work", status_code=200)
    async def do() -> dict[str, int]:
        return await work.do()

    @app.post("/status/{status}")
    async def status(status: int, response: Response) -> dict[str, int]:
        response.status_code = status
        return await work.do()

    @app.post("/large")
    async def large() -> Response:
        await work.do()
        return Response(b"x" * 2_000)

    @app.post("/stream")
    async def stream() -> StreamingResponse:
        await work.do()
        return StreamingResponse(iter([b"a", b"b"]))

    @app.post("/marked/work", status_code=201)
    @idempotent(required=True)
    async def marked(body: dict[str, Any]) -> dict[str, int]:
        return await work.do()

    @app.post("/auto", status_code=201)
    @idempotent(auto=True)
    async def auto(request: Request) -> dict[str, int]:
        return await work.do()

    _ = do, status, large, stream, marked, auto
    return app


async def test_repeated_key_gets_the_stored_response(connect: Connect, work: Work) -> None:
    async with connect(fastapi_app(work)) as ann:
        first, again = [await ann.post("/work", json={"a": 1}, headers=KEY) for _ in range(2)]
        other = await ann.post("/work", json={"a": 2}, headers=KEY)
        bob = await ann.post("/work", json={"a": 1}, headers={**KEY, "X-User": "bob"})
    assert (first.status_code, again.status_code, again.content) == (201, 201, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert (other.status_code, other.json()["error_code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert (bob.json(), work.done) == ({"done": 2}, 2)


async def test_secret_endpoint_is_refused_in_cache_mode(connect: Connect, work: Work) -> None:
    @idempotent(secret=True)
    async def endpoint(request: Request) -> JSONResponse:
        return JSONResponse(await work.do())

    async with connect(Starlette(routes=[Route("/work", endpoint, methods=["POST"])])) as ann:
        assert (await ann.post("/work", headers=KEY)).status_code == 500
    assert work.done == 0


async def test_starlette_application_is_supported(connect: Connect, work: Work) -> None:
    @idempotent(required=True)
    async def endpoint(request: Request) -> JSONResponse:
        return JSONResponse(await work.do() | {"body": (await request.body()).decode()})

    app = Starlette(routes=[Route("/work", endpoint, methods=["POST"])])
    async with connect(app) as ann:
        missing = await ann.post("/work")
        first, again = [await ann.post("/work", content=b"hello", headers=KEY) for _ in range(2)]
    assert (missing.status_code, missing.json()["error_code"]) == (400, "IDEMPOTENCY_KEY_MISSING")
    assert first.json() == {"done": 1, "body": "hello"}
    assert again.content == first.content


@pytest.mark.guarantee("G62")
async def test_key_in_use_is_refused_at_once(connect: Connect, work: Work) -> None:
    work.go_on.clear()
    async with connect(fastapi_app(work)) as ann:
        running = asyncio.create_task(ann.post("/work", headers=KEY))
        await work.reached.wait()
        refused = await asyncio.wait_for(ann.post("/work", headers=KEY), WAIT_S)
        work.go_on.set()
        await running
    assert (refused.status_code, refused.headers["retry-after"], work.done) == (409, "1", 1)


@pytest.mark.guarantee("G65")
@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
async def test_error_is_not_stored(connect: Connect, work: Work, status: int) -> None:
    async with connect(fastapi_app(work)) as ann:
        for _ in range(2):
            assert (await ann.post(f"/status/{status}", headers=KEY)).status_code == status
    assert work.done == 2


@pytest.mark.guarantee("G67")
async def test_large_response_and_stream_leave_tombstones(connect: Connect, work: Work) -> None:
    async with connect(fastapi_app(work)) as ann:
        large = await ann.post("/large", headers=KEY)
        stream = await ann.post("/stream", headers={"Idempotency-Key": "s"})
        again = [
            await ann.post("/large", headers=KEY),
            await ann.post("/stream", headers={"Idempotency-Key": "s"}),
        ]
    assert (large.status_code, len(large.content)) == (200, 2_000)
    assert (stream.status_code, stream.json()["error_code"]) == (500, "ANSWER_UNKEEPABLE")
    assert [one.json()["error_code"] for one in again] == ["RESPONSE_NOT_KEPT"] * 2
    assert work.done == 2


async def test_stream_without_a_key_is_sent_as_a_stream(connect: Connect, work: Work) -> None:
    async with connect(fastapi_app(work)) as ann:
        assert (await ann.post("/stream")).content == b"ab"


async def test_only_given_methods_and_prefixes_support_keys(connect: Connect, work: Work) -> None:
    async with connect(fastapi_app(work), prefixes=["/work"], methods=["POST"]) as ann:
        outside = [
            await ann.post("/works", headers=KEY),
            await ann.delete("/work", headers=KEY),
        ]
        inside = await ann.post("/work", headers=KEY)
    assert [one.headers["idempotency-status"] for one in outside] == ["ignored"] * 2
    assert "idempotency-status" not in inside.headers


async def test_decorator_applies_wherever_its_endpoint_is_mounted(connect: Connect, work: Work) -> None:
    async with connect(fastapi_app(work), prefixes=["/elsewhere"]) as ann:
        missing = await ann.post("/marked/work", json={})
        first, again = [await ann.post("/marked/work", json={}, headers=KEY) for _ in range(2)]
    assert missing.json()["error_code"] == "IDEMPOTENCY_KEY_MISSING"
    assert (again.content, work.done) == (first.content, 1)


@pytest.mark.parametrize("ttl", [timedelta(hours=2), timedelta(days=7)])
async def test_first_response_shows_the_ttl_of_its_endpoint(
    connect: Connect, work: Work, ttl: timedelta
) -> None:
    @idempotent(ttl=ttl)
    async def endpoint(request: Request) -> JSONResponse:
        return JSONResponse(await work.do())

    async with connect(Starlette(routes=[Route("/work", endpoint, methods=["POST"])])) as ann:
        answers = [await ann.post("/work", headers=KEY) for _ in range(2)]
    shown, stored = [parsedate_to_datetime(one.headers["idempotency-expires"]) for one in answers]
    assert timedelta() <= stored - shown < timedelta(hours=1)


async def test_key_is_generated_from_the_request(connect: Connect, work: Work) -> None:
    async with connect(fastapi_app(work)) as ann:
        first, again = [await ann.post("/auto", json={"a": 1}) for _ in range(2)]
        other = await ann.post("/auto", json={"a": 2})
    assert (again.content, other.json()) == (first.content, {"done": 2})


async def test_anonymous_caller_has_no_keys(connect: Connect, work: Work) -> None:
    async with connect(fastapi_app(work)) as ann:
        unnamed = [await ann.post("/work", headers={**KEY, "X-User": ""}) for _ in range(2)]
        ann.headers.pop("x-user")
        unnamed.append(await ann.post("/work", headers=KEY))
    assert [one.headers["idempotency-status"] for one in unnamed] == ["ignored"] * 3
    assert work.done == 3


async def test_body_too_large_to_compare_is_refused_before_any_work(connect: Connect, work: Work) -> None:
    async with connect(fastapi_app(work)) as ann:
        refused = await ann.post("/work", content=b"x" * 1_001, headers=KEY)
    assert (refused.status_code, work.done) == (413, 0)


async def test_response_that_cannot_be_stored_is_sent_and_logged(
    database: Database, connect: Connect, work: Work
) -> None:
    app = fastapi_app(work)

    @app.post("/last", status_code=201)
    async def last() -> dict[str, int]:
        # The store's connection ends while the endpoint works.
        async with database.connection() as connection:
            others = (
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> $1"
            )
            [me] = await connection.fetch("SELECT pg_backend_pid() AS pid")
            await connection.fetch(others, me["pid"])
        return await work.do()

    with capture_logs() as lines:
        async with connect(app) as ann:
            answer = await ann.post("/last", headers=KEY)
    assert (answer.status_code, answer.json()) == (201, {"done": 1})
    assert any("not stored" in line["event"] for line in lines)
    _ = last


async def test_principal_function_may_raise_http_exceptions(database: Database, work: Work) -> None:
    async def service(_request: Request) -> IdempotencyService:
        return IdempotencyService(database.sessions())

    async def principal(_request: Request) -> str:
        raise HTTPException(401, "token required", {"WWW-Authenticate": "Bearer"})

    app = fastapi_app(work)
    app.add_middleware(IdempotencyMiddleware, idempotency_service_factory=service, principal=principal)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        refused = await client.post("/work", headers=KEY)
    assert (refused.status_code, refused.headers["www-authenticate"], work.done) == (401, "Bearer", 0)


class TenantLocked(RelayboxError):
    error_code = "TENANT_LOCKED"


async def test_error_of_the_principal_function_uses_the_application_table(
    database: Database, work: Work
) -> None:
    async def service(_request: Request) -> IdempotencyService:
        return IdempotencyService(database.sessions())

    async def principal(_request: Request) -> str:
        raise TenantLocked("pay the invoice")

    app = fastapi_app(work)
    app.add_middleware(IdempotencyMiddleware, idempotency_service_factory=service, principal=principal)
    install_error_handlers(app, {**ERROR_TABLE, TenantLocked: ErrorResponse(status=402)})
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        refused = await client.post("/work", headers=KEY)
    assert (refused.status_code, refused.json()["error_code"], work.done) == (402, "TENANT_LOCKED", 0)


async def test_cache_mode_beside_units_of_work_does_not_exhaust_the_pool(database: Database) -> None:
    """Each request looks its key up and then begins its unit of work, with one connection at a time."""

    async def service(_request: Request) -> IdempotencyService:
        return IdempotencyService(database.sessions())

    async def principal(request: Request) -> str:
        return request.headers["x-user"]

    app = FastAPI()
    unit = unit_of_work(database, principal)
    app.add_middleware(IdempotencyMiddleware, idempotency_service_factory=service, principal=principal)

    @app.post("/now")
    async def now(unit: Annotated[UnitOfWork[str], Depends(unit)]) -> str:
        return str((await unit.db.execute(text("SELECT clock_timestamp()"))).scalar_one())

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        requests = [
            client.post("/now", headers={"X-User": "ann", "Idempotency-Key": str(n)}) for n in range(40)
        ]
        answers = await asyncio.gather(*requests)
    assert {one.status_code for one in answers} == {200}
    _ = now


async def test_middleware_requires_a_principal() -> None:
    async def service(_request: Request) -> IdempotencyService:
        raise NotImplementedError

    with pytest.raises(TypeError, match="principal="):
        IdempotencyMiddleware(FastAPI(), idempotency_service_factory=service)


async def test_marked_endpoint_without_a_store_names_what_is_missing(
    work: Work,
) -> None:
    app = fastapi_app(work)
    app.add_middleware(IdempotencyMiddleware)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        with pytest.raises(RuntimeError, match="principal="):
            await client.post("/marked/work", json={}, headers=KEY)


@pytest.mark.guarantee("G67")
def test_endpoint_that_cannot_be_stored_is_refused_at_declaration() -> None:
    with pytest.raises(TypeError, match="async def"):

        @idempotent  # pyright: ignore[reportArgumentType]
        def sync() -> None: ...

    with pytest.raises(TypeError, match="returns a StreamingResponse"):

        @idempotent(required=True)
        async def stream() -> StreamingResponse:
            raise NotImplementedError

    with pytest.raises(ValueError, match="ttl"):

        @idempotent(ttl=0)
        async def never() -> None: ...

    with pytest.raises(ValueError, match="required"):

        @idempotent(auto=True, secret=True)
        async def guessable() -> None: ...

    with pytest.raises(TypeError, match="without yield"):

        @idempotent  # pyright: ignore[reportArgumentType]
        async def generator() -> Any:
            yield b""
