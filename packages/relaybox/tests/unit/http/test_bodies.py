"""Bodies: declared, bounded, and not read before the sender is known."""

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from relaybox.http import BodyTooLarge, read_bytes, read_json
from starlette.requests import Request
from starlette.types import Message

Post = Callable[..., Awaitable[httpx.Response]]
ORDER = "/orders/00000000-0000-0000-0000-000000000001"
GOOD = b'{"lines": [{"article": "a", "count": 1}]}'
LIMIT_BYTES = 4_096


async def chunks(total_bytes: int, taken: list[int]) -> AsyncIterator[bytes]:
    for sent in range(0, total_bytes, 1_000):
        taken.append(sent)
        yield b" " * 1_000


async def test_a_good_body_arrives_as_its_model(post: Post, token: dict[str, str]) -> None:
    answer = await post(ORDER, GOOD, token)
    assert (answer.status_code, answer.json()["lines"], answer.json()["sender"]) == (200, 1, "ann")


@pytest.mark.parametrize("path", ["/anything", "/raw", "/framework"])
async def test_a_body_announced_too_large_is_refused(post: Post, path: str) -> None:
    answer = await post(path, b"1" + b" " * LIMIT_BYTES)
    assert (answer.status_code, answer.json()["error_code"]) == (413, "BODY_TOO_LARGE")


@pytest.mark.parametrize("path", ["/anything", "/raw", "/framework"])
async def test_a_body_without_an_announced_length_is_read_to_the_limit_only(post: Post, path: str) -> None:
    taken: list[int] = []
    answer = await post(path, chunks(100_000, taken))
    assert (answer.status_code, answer.json()["error_code"]) == (413, "BODY_TOO_LARGE")
    assert len(taken) <= LIMIT_BYTES // 1_000 + 1


async def test_a_body_of_exactly_the_limit_is_taken(post: Post) -> None:
    assert (await post("/anything", b"1" + b" " * (LIMIT_BYTES - 1))).json() == 1


async def test_a_route_may_take_more_than_its_application(post: Post) -> None:
    assert (await post("/large", b"1" + b" " * (2 * LIMIT_BYTES - 1))).json() == 1
    assert (await post("/large", b"1" + b" " * (2 * LIMIT_BYTES))).status_code == 413


async def test_the_limit_holds_without_the_middleware() -> None:
    parts = iter([{"type": "http.request", "body": b" " * 1_000, "more_body": True}] * 100)

    async def receive() -> Message:
        return next(parts)

    headers = [(b"content-type", b"application/json")]
    with pytest.raises(BodyTooLarge):
        await read_json(Request({"type": "http", "headers": headers}, receive), LIMIT_BYTES)
    assert len(list(parts)) == 95


async def test_bytes_come_as_they_were_sent_whatever_they_are() -> None:
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
async def test_an_absurd_length_is_only_too_large(post: Post, length: str) -> None:
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
async def test_json_in_utf_8_is_taken(post: Post, media_type: str) -> None:
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
async def test_anything_else_is_an_unsupported_media_type(post: Post, headers: dict[str, str]) -> None:
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
async def test_each_wrong_body_has_its_code(
    post: Post, token: dict[str, str], body: bytes, status: int, code: str
) -> None:
    answer = await post(ORDER, body, token)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)


@pytest.mark.parametrize("path", [ORDER, "/orders/no-uuid"])
async def test_without_a_token_nothing_else_of_a_request_counts(post: Post, path: str) -> None:
    taken: list[int] = []
    answer = await post(path, chunks(100_000, taken), {"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["error_code"]) == (401, "TOKEN_MISSING")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert taken == []


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Basic YTpi", "x"])
async def test_a_header_without_a_bearer_token_is_a_missing_token(post: Post, header: str) -> None:
    answer = await post(ORDER, GOOD, {"Authorization": header})
    assert answer.json()["error_code"] == "TOKEN_MISSING"


async def test_a_bad_token_is_told_apart_from_none(post: Post) -> None:
    answer = await post(ORDER, GOOD, {"Authorization": "bearer abc"})
    assert (answer.status_code, answer.json()["error_code"]) == (401, "TOKEN_INVALID")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
