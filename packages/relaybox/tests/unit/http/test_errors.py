"""Every error has one format and one status, and discloses nothing internal."""

from collections.abc import Awaitable, Callable, Iterator

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from relaybox.errors import RelayboxError
from relaybox.http import AUTH_ERRORS, BODY_ERRORS, ERROR_TABLE, TokenMissing, error_responses
from relaybox.http._idempotency_middleware import _REFUSALS
from relaybox.idempotency import IdempotencyError, StoreUnavailable
from relaybox_types.api import ErrorBody
from structlog.testing import capture_logs

Post = Callable[..., Awaitable[httpx.Response]]


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("taken", 409, "TAKEN"),
        ("away", 503, "DATABASE_UNAVAILABLE"),
        ("busy", 503, "DATABASE_BUSY"),
        ("teapot", 418, "IM_A_TEAPOT"),
        ("too-large", 413, "BODY_TOO_LARGE"),
        ("message-too-large", 422, "MESSAGE_TOO_LARGE"),
        ("undeclared", 500, "INTERNAL_ERROR"),
        ("incomplete", 500, "INTERNAL_ERROR"),
        ("unlisted", 500, "INTERNAL_ERROR"),
        ("unexpected", 500, "INTERNAL_ERROR"),
    ],
)
async def test_each_error_has_its_status_and_code(
    http: httpx.AsyncClient, name: str, status: int, code: str
) -> None:
    answer = await http.get(f"/api/shop/s/raise/{name}")
    body = answer.json()
    assert (answer.status_code, body["error_code"]) == (status, code)
    assert body["message"]
    assert body["request_id"] == answer.headers["x-request-id"]


async def test_error_may_have_additional_fields(http: httpx.AsyncClient) -> None:
    assert (await http.get("/api/shop/s/raise/taken")).json()["taken_by"] == "ann"


async def test_error_does_not_show_the_address_of_the_database(http: httpx.AsyncClient) -> None:
    assert "secret-host" not in (await http.get("/api/shop/s/raise/away")).text


async def test_retryable_error_has_retry_after(http: httpx.AsyncClient) -> None:
    assert (await http.get("/api/shop/s/raise/away")).headers["retry-after"] == "5"
    assert (await http.get("/api/shop/s/raise/busy")).headers["retry-after"] == "1"
    assert (await http.get("/api/shop/s/raise/tired")).headers["retry-after"] == "7"


async def test_headers_of_framework_errors_are_kept(http: httpx.AsyncClient) -> None:
    assert (await http.get("/api/shop/s/raise/teapot")).headers["x-pot"] == "tea"


@pytest.mark.parametrize("name", ["undeclared", "incomplete", "unlisted", "unexpected"])
async def test_unexpected_error_is_logged_once_and_not_shown(http: httpx.AsyncClient, name: str) -> None:
    with capture_logs() as lines:
        answer = await http.get(f"/api/shop/s/raise/{name}")
    assert "private" not in answer.text
    (line,) = [line for line in lines if line["log_level"] == "error"]
    assert "private" in line["traceback"]


async def test_unexpected_error_has_cors_headers(http: httpx.AsyncClient) -> None:
    answer = await http.get("/api/shop/s/raise/unexpected", headers={"Origin": "https://shop.example"})
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"


async def test_response_that_fails_halfway_is_cut_off(api: FastAPI) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as http:
        with pytest.raises(ValueError, match="too late"):
            await http.get("/api/shop/s/half")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "NOT_FOUND"),
        ("GET", "/api/shop/s/raw/", 404, "NOT_FOUND"),
        ("DELETE", "/api/shop/s/raw", 405, "METHOD_NOT_ALLOWED"),
    ],
)
async def test_unknown_routes_and_methods_have_error_bodies(
    http: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await http.request(method, path)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    if status == 405:
        assert answer.headers["allow"] == "POST"


async def test_validation_error_names_fields_without_the_input(post: Post) -> None:
    answer = await post("/framework", b'{"lines": [{"article": "a", "count": "private"}, {"article": 1}]}')
    body = answer.json()
    assert (answer.status_code, body["error_code"]) == (422, "VALIDATION_ERROR")
    fields = {detail["field"] for detail in body["details"]}
    assert fields == {"body.lines.0.count", "body.lines.1.article", "body.lines.1.count"}
    assert "private" not in answer.text


async def test_details_have_one_format_for_all_errors(http: httpx.AsyncClient, post: Post) -> None:
    answers = [await post("/framework", b'{"lines": 1}')]
    answers += [await http.get(f"/api/shop/s/raise/{name}") for name in ("unfit", "bad-payload")]
    for answer in answers:
        body = ErrorBody.model_validate(answer.json(), strict=True)
        assert answer.status_code == 422
        assert body.details
        assert answer.json()["details"] == [detail.model_dump() for detail in body.details]


async def test_refusal_without_details_has_none(http: httpx.AsyncClient) -> None:
    assert "details" not in (await http.get("/api/shop/s/raise/refused")).json()


async def test_number_of_details_is_limited(post: Post, token: dict[str, str]) -> None:
    many = b'{"lines": [' + b",".join([b"{}"] * 100) + b"]}"
    order = "/orders/00000000-0000-0000-0000-000000000001"
    for answer in (await post(order, many, token), await post("/framework", many)):
        assert answer.status_code == 422
        assert len(answer.json()["details"]) == 20


def test_documented_errors_are_grouped_by_status_with_all_codes() -> None:
    documented = error_responses(*AUTH_ERRORS, *BODY_ERRORS)
    assert list(documented) == [400, 401, 408, 413, 415, 422]
    assert documented[401]["description"].endswith("TOKEN_EXPIRED, TOKEN_INVALID, TOKEN_MISSING")
    assert "WWW-Authenticate" in documented[401]["headers"]


def test_error_without_a_response_cannot_be_documented() -> None:
    with pytest.raises(LookupError, match="RelayboxError"):
        error_responses(TokenMissing, RelayboxError, error_table=ERROR_TABLE)


def subclasses_of(base: type[Exception]) -> Iterator[type[Exception]]:
    """Yield all subclasses that the library defines, without those that other tests define."""
    for each in base.__subclasses__():
        if each.__module__.startswith("relaybox."):
            yield each
        yield from subclasses_of(each)


def test_each_idempotency_error_has_a_response_of_its_own() -> None:
    assert set(subclasses_of(IdempotencyError)) - set(ERROR_TABLE) == set()


def test_each_idempotency_error_but_an_outage_is_an_outcome_of_the_metric() -> None:
    assert set(subclasses_of(IdempotencyError)) - set(_REFUSALS) == {StoreUnavailable}
    assert len(set(_REFUSALS.values())) == len(_REFUSALS)
