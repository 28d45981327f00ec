"""Bodies: declared, limited, and read only after authentication."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2 as httpx
import pytest
from pydantic import BaseModel, field_validator
from relaybox.db import Database
from relaybox.http import (
    Backbone,
    BodyLimitMiddleware,
    BodyTimeout,
    BodyTooLarge,
    SharedSecretVerifier,
    aggregate_router,
    create_app,
    limit_body,
    read_bytes,
    read_json,
    read_model,
)
from relaybox.settings import HttpSettings, PostgresSettings
from starlette.requests import Request
from starlette.types import Message

from packages.relaybox.tests.unit.http.conftest import JWT
from tests.fixtures.counters import counters

Post = Callable[..., Awaitable[httpx.Response]]
ORDER = "/orders/00000000-0000-0000-0000-000000000001"
GOOD = b'{"lines": [{"article": "a", "count": 1}]}'
LIMIT_BYTES = 4_096


async def chunks(total_bytes: int, taken: list[int]) -> AsyncIterator[bytes]:
    for sent in range(0, total_bytes, 1_000):
        taken.append(sent)
        yield b" " * 1_000


async def test_valid_body_is_passed_as_its_model(post: Post, token: dict[str, str]) -> None:
    answer = await post(ORDER, GOOD, token)
    assert (answer.status_code, answer.json()["lines"], answer.json()["sender"]) == (200, 1, "ann")


@pytest.mark.parametrize("path", ["/anything", "/raw", "/framework"])
async def test_body_announced_as_too_large_is_refused(post: Post, path: str) -> None:
    answer = await post(path, b"1" + b" " * LIMIT_BYTES)
    assert (answer.status_code, answer.json()["error_code"]) == (413, "BODY_TOO_LARGE")


@pytest.mark.guarantee("G83")
@pytest.mark.parametrize("path", ["/anything", "/raw", "/framework"])
async def test_body_without_length_is_read_up_to_the_limit(post: Post, path: str) -> None:
    taken: list[int] = []
    answer = await post(path, chunks(100_000, taken))
    assert (answer.status_code, answer.json()["error_code"]) == (413, "BODY_TOO_LARGE")
    assert len(taken) <= LIMIT_BYTES // 1_000 + 1


async def test_body_of_exactly_the_limit_is_accepted(post: Post) -> None:
    assert (await post("/anything", b"1" + b" " * (LIMIT_BYTES - 1))).json() == 1


async def test_route_may_have_a_higher_limit_than_its_application(post: Post) -> None:
    assert (await post("/large", b"1" + b" " * (2 * LIMIT_BYTES - 1))).json() == 1
    assert (await post("/large", b"1" + b" " * (2 * LIMIT_BYTES))).status_code == 413


@pytest.mark.parametrize("path", ["", "/00000000-0000-0000-0000-000000000001/commands"])
@pytest.mark.parametrize(
    ("limit_bytes", "body_bytes", "code"),
    [
        (100, 100, "MALFORMED_JSON"),
        (100, 101, "BODY_TOO_LARGE"),
        (2 * 1024 * 1024, 1024 * 1024 + 1, "MALFORMED_JSON"),
    ],
)
async def test_limit_of_the_application_applies_to_library_routes(
    token: dict[str, str], path: str, limit_bytes: int, body_bytes: int, code: str
) -> None:
    backbone = Backbone(Database(PostgresSettings(port=1)), [counters], verifier=SharedSecretVerifier(JWT))
    app = create_app(
        title="Counters",
        version="1",
        lifespan=backbone.lifespan,
        checks={},
        registry=backbone.registry,
        body_bytes_max=limit_bytes,
    )
    app.include_router(aggregate_router(backbone, counters), prefix="/counters")
    headers = {**token, "Content-Type": "application/json"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        answer = await http.post(f"/counters{path}", content=b" " * body_bytes, headers=headers)
    assert answer.json()["error_code"] == code


@pytest.mark.parametrize(
    ("set_bytes", "limit_bytes"), [(None, 1024 * 1024), (10, 10), (1024**2 * 2, 1024**2 * 2)]
)
async def test_limit_set_before_reading_applies(set_bytes: int | None, limit_bytes: int) -> None:
    def request(body_bytes: int) -> Request:
        async def receive() -> Message:
            return {"type": "http.request", "body": b" " * body_bytes}

        one = Request({"type": "http", "headers": []}, receive)
        if set_bytes is not None:
            limit_body(one, set_bytes)
        return one

    assert len(await read_bytes(request(limit_bytes))) == limit_bytes
    with pytest.raises(BodyTooLarge):
        await read_bytes(request(limit_bytes + 1))


async def test_limit_applies_without_the_middleware() -> None:
    parts = iter([{"type": "http.request", "body": b" " * 1_000, "more_body": True}] * 100)

    async def receive() -> Message:
        return next(parts)

    headers = [(b"content-type", b"application/json")]
    with pytest.raises(BodyTooLarge):
        await read_json(Request({"type": "http", "headers": headers}, receive), LIMIT_BYTES)
    assert len(list(parts)) == 95


class Parsed(BaseModel):
    """Records the thread that parses it."""

    padding: str
    thread: str = ""

    @field_validator("thread")
    @classmethod
    def _note(cls, _value: str) -> str:
        return threading.current_thread().name


@pytest.mark.parametrize(("size_bytes", "aside"), [(1_000, False), (2 * 1024 * 1024, True)])
async def test_large_body_is_parsed_in_another_thread(size_bytes: int, aside: bool) -> None:
    body = b'{"thread": "", "padding": "' + b"[1,2]" * (size_bytes // 5) + b'"}'

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    request = Request({"type": "http", "headers": [(b"content-type", b"application/json")]}, receive)
    parsed = await read_model(request, Parsed, 2 * len(body))
    assert (parsed.thread != threading.current_thread().name) is aside


async def wait_for_the_rest(*chunks: bytes, **settings: Any) -> None:
    """Read the body of a client that sends *chunks* and then nothing, behind the middleware."""
    unsent = list(chunks)

    async def receive() -> Message:
        if not unsent:
            await asyncio.get_running_loop().create_future()
        return {"type": "http.request", "body": unsent.pop(0), "more_body": True}

    async def route(scope: Any, receive: Any, _send: Any) -> None:
        await Request(scope, receive).body()

    async def send(_message: Message) -> None:
        raise AssertionError

    limited = BodyLimitMiddleware(route, settings=HttpSettings(**settings))
    await limited({"type": "http", "headers": []}, receive, send)


@pytest.mark.parametrize("sent", [[], [b"a"], [b"a", b"b"]])
async def test_body_that_stops_arriving_is_a_timeout(sent: list[bytes]) -> None:
    with pytest.raises(BodyTimeout, match=r"did not arrive within 0\.01"):
        await wait_for_the_rest(*sent, body_timeout_s=0.01)


async def test_large_body_has_a_longer_time_limit() -> None:
    with pytest.raises(BodyTimeout, match=r"did not arrive within 0\.06"):
        await wait_for_the_rest(b" " * 1_024, body_timeout_s=0.01, body_rate_min_bytes_s=20_480)


async def test_raw_body_is_passed_unchanged() -> None:
    parts = iter(
        [
            {"type": "http.request", "body": b"\xff\x00", "more_body": True},
            {"type": "http.request", "body": b"\r\n", "more_body": False},
        ]
    )

    async def receive() -> Message:
        return next(parts)

    request = Request({"type": "http", "headers": [(b"content-encoding", b"gzip")]}, receive)
    assert await read_bytes(request, LIMIT_BYTES) == b"\xff\x00\r\n"


@pytest.mark.parametrize("length", ["9" * 30, "9" * 5_000])
async def test_absurd_content_length_is_too_large(post: Post, length: str) -> None:
    answer = await post("/anything", b"1", {"Content-Length": length})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        'Application/JSON;charset="UTF-8"',
        "application/json;",
    ],
)
async def test_json_in_utf_8_is_accepted(post: Post, media_type: str) -> None:
    assert (await post("/anything", b"1", {"Content-Type": media_type})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json; charset=utf-8; charset=utf-16"},
        {"Content-Encoding": "gzip"},
    ],
)
async def test_other_content_type_is_an_unsupported_media_type(post: Post, headers: dict[str, str]) -> None:
    answer = await post("/anything", b"1", headers)
    assert (answer.status_code, answer.json()["error_code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "MALFORMED_JSON"),
        (b"[" * 1_000, 422, "JSON_TOO_DEEP"),
        (b'["\\u0000"]', 422, "JSON_NOT_STORABLE"),
        (b"[]", 422, "VALIDATION_ERROR"),
    ],
)
async def test_each_kind_of_invalid_body_has_its_code(
    post: Post, token: dict[str, str], body: bytes, status: int, code: str
) -> None:
    answer = await post(ORDER, body, token)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)


@pytest.mark.parametrize("path", [ORDER, "/orders/no-uuid"])
async def test_missing_token_is_reported_before_any_other_error(post: Post, path: str) -> None:
    taken: list[int] = []
    answer = await post(path, chunks(100_000, taken), {"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["error_code"]) == (401, "TOKEN_MISSING")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert taken == []


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Basic YTpi", "x"])
async def test_header_without_a_bearer_token_is_a_missing_token(post: Post, header: str) -> None:
    answer = await post(ORDER, GOOD, {"Authorization": header})
    assert answer.json()["error_code"] == "TOKEN_MISSING"


async def test_invalid_token_differs_from_a_missing_one(post: Post) -> None:
    answer = await post(ORDER, GOOD, {"Authorization": "bearer abc"})
    assert (answer.status_code, answer.json()["error_code"]) == (401, "TOKEN_INVALID")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
