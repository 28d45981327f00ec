"""Every error has one form, one status, and tells nothing it should not."""

from collections.abc import Awaitable, Callable

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from relaybox.errors import RelayboxError
from relaybox.http import AUTH_ERRORS, BODY_ERRORS, ERROR_TABLE, TokenMissing, error_responses
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
async def test_each_error_has_its_status_and_code_at_the_top(
    http: httpx.AsyncClient, name: str, status: int, code: str
) -> None:
    answer = await http.get(f"/api/shop/s/raise/{name}")
    body = answer.json()
    assert (answer.status_code, body["error_code"]) == (status, code)
    assert body["message"]
    assert body["request_id"] == answer.headers["x-request-id"]


async def test_an_error_may_add_fields_of_its_own(http: httpx.AsyncClient) -> None:
    assert (await http.get("/api/shop/s/raise/taken")).json()["taken_by"] == "ann"


async def test_a_client_is_not_told_where_the_database_is(http: httpx.AsyncClient) -> None:
    assert "secret-host" not in (await http.get("/api/shop/s/raise/away")).text


async def test_who_should_come_again_is_told_when(http: httpx.AsyncClient) -> None:
    assert (await http.get("/api/shop/s/raise/away")).headers["retry-after"] == "5"
    assert (await http.get("/api/shop/s/raise/busy")).headers["retry-after"] == "1"
    assert (await http.get("/api/shop/s/raise/tired")).headers["retry-after"] == "7"


async def test_headers_of_the_frameworks_errors_are_kept(http: httpx.AsyncClient) -> None:
    assert (await http.get("/api/shop/s/raise/teapot")).headers["x-pot"] == "tea"


@pytest.mark.parametrize("name", ["undeclared", "incomplete", "unlisted", "unexpected"])
async def test_an_unexpected_error_is_logged_once_and_tells_the_client_nothing(
    http: httpx.AsyncClient, name: str
) -> None:
    with capture_logs() as lines:
        answer = await http.get(f"/api/shop/s/raise/{name}")
    assert "private" not in answer.text
    (line,) = [line for line in lines if line["log_level"] == "error"]
    assert "private" in line["traceback"]


async def test_an_unexpected_error_can_be_read_by_a_browser(http: httpx.AsyncClient) -> None:
    answer = await http.get("/api/shop/s/raise/unexpected", headers={"Origin": "https://shop.example"})
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"


async def test_an_answer_that_breaks_halfway_is_cut_and_not_continued(api: FastAPI) -> None:
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
async def test_unknown_routes_and_methods_have_error_bodies_too(
    http: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await http.request(method, path)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    if status == 405:
        assert answer.headers["allow"] == "POST"


async def test_a_wrong_form_names_the_fields_and_not_the_input(post: Post) -> None:
    answer = await post("/framework", b'{"lines": [{"article": "a", "count": "private"}, {"article": 1}]}')
    body = answer.json()
    assert (answer.status_code, body["error_code"]) == (422, "VALIDATION_ERROR")
    fields = {detail["field"] for detail in body["details"]}
    assert fields == {"body.lines.0.count", "body.lines.1.article", "body.lines.1.count"}
    assert "private" not in answer.text


async def test_details_have_one_form_wherever_they_come_from(http: httpx.AsyncClient, post: Post) -> None:
    answers = [await post("/framework", b'{"lines": 1}')]
    answers += [await http.get(f"/api/shop/s/raise/{name}") for name in ("unfit", "bad-payload")]
    for answer in answers:
        body = ErrorBody.model_validate(answer.json(), strict=True)
        assert answer.status_code == 422
        assert body.details
        assert answer.json()["details"] == [detail.model_dump() for detail in body.details]


async def test_a_refusal_without_details_has_none(http: httpx.AsyncClient) -> None:
    assert "details" not in (await http.get("/api/shop/s/raise/refused")).json()


async def test_the_details_of_a_wrong_form_are_bounded(post: Post, token: dict[str, str]) -> None:
    many = b'{"lines": [' + b",".join([b"{}"] * 100) + b"]}"
    order = "/orders/00000000-0000-0000-0000-000000000001"
    for answer in (await post(order, many, token), await post("/framework", many)):
        assert answer.status_code == 422
        assert len(answer.json()["details"]) == 20


def test_documented_errors_stand_under_their_status_with_all_codes() -> None:
    documented = error_responses(*AUTH_ERRORS, *BODY_ERRORS)
    assert list(documented) == [400, 401, 408, 413, 415, 422]
    assert documented[401]["description"].endswith("TOKEN_EXPIRED, TOKEN_INVALID, TOKEN_MISSING")
    assert "WWW-Authenticate" in documented[401]["headers"]


def test_an_error_without_an_answer_cannot_be_documented() -> None:
    with pytest.raises(LookupError, match="RelayboxError"):
        error_responses(TokenMissing, RelayboxError, error_table=ERROR_TABLE)
