"""A request is sent with one key and the same bytes until its response is known."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO, UnsupportedOperation
from typing import Any, TypeAlias
from uuid import UUID

import httpx2 as httpx
import pytest
from fastapi import FastAPI, Request, Response
from hypothesis import given
from hypothesis import strategies as st
from relaybox.http.client import BodyNotRepeatable, IdempotentClient, KeyUnusable, ResponseUnknown
from relaybox.http.client._decisions import (
    GiveUp,
    Retry,
    http_date,
    is_retryable,
    next_step,
    quoted,
    retry_after_s,
)
from structlog.testing import capture_logs

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
IN_FLIGHT = b'{"error_code": "REQUEST_IN_FLIGHT"}'


@pytest.mark.parametrize("status", [200, 201, 202, 303, 400, 401, 404, 410, 412, 422, 501])
def test_final_response_is_not_retried(status: int) -> None:
    assert not is_retryable(status, IN_FLIGHT)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_response_that_records_nothing_is_retried(status: int) -> None:
    assert is_retryable(status, b"")


@pytest.mark.parametrize(
    ("body", "repeated"),
    [
        (IN_FLIGHT, True),
        (b'{"error_code": "DUPLICATE_COMMAND"}', False),
        (b'{"error_code": ["REQUEST_IN_FLIGHT"]}', False),
        (b'["REQUEST_IN_FLIGHT"]', False),
        (b"<html>REQUEST_IN_FLIGHT", False),
        (b"", False),
    ],
)
def test_409_is_retried_only_while_the_first_request_runs(body: bytes, repeated: bool) -> None:
    assert is_retryable(409, body) is repeated


@pytest.mark.parametrize(
    ("text", "after_s"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("9" * 5_000, float("inf")),
        ("Fri, 02 Jan 2026 03:04:35 GMT", 30.0),
        ("Friday, 02-Jan-26 03:04:35 GMT", 30.0),
        ("Fri Jan  2 03:04:35 2026", 30.0),
        ("Fri, 02 Jan 2026 03:04:00 GMT", 0.0),
        ("soon", None),
        ("1.5", None),
        ("-1", None),
        ("²", None),
        ("", None),
        ("Fri, 02 Jan 99999999999999999999 03:04:35 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, after_s: float | None) -> None:
    assert retry_after_s(text, NOW) == after_s


@given(st.text())
def test_any_date_of_a_server_is_parsed_without_exception(text: str) -> None:
    assert (at := http_date(text)) is None or at.tzinfo is not None


def step(attempts: int = 1, **changes: Any) -> Retry | GiveUp:
    given: dict[str, Any] = {"attempts_max": 9, "left_s": 60.0, "requested_s": None, "chance": 1.0}
    return next_step(attempts, **given | changes)


def test_bound_of_a_random_wait_doubles_up_to_8_s() -> None:
    bounds = [step(attempts) for attempts in range(1, 8)]
    assert bounds == [Retry(after_s=after_s) for after_s in (0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)]
    assert step(5_000, attempts_max=9_999) == Retry(after_s=8.0)


def test_random_wait_is_between_0_and_its_bound() -> None:
    assert [step(3, chance=chance) for chance in (0.0, 0.25)] == [Retry(after_s=0.0), Retry(after_s=0.5)]


def test_wait_requested_by_the_server_is_used_unchanged() -> None:
    assert [step(requested_s=requested_s) for requested_s in (0.0, 30.0)] == [
        Retry(after_s=0.0),
        Retry(after_s=30.0),
    ]


def test_attempts_and_time_are_limited() -> None:
    assert step(8) == Retry(after_s=8.0)
    assert step(9) == GiveUp()
    assert step(requested_s=60.0) == GiveUp()
    assert step(left_s=0.5) == GiveUp()
    assert step(left_s=-1.0, chance=0.0) == GiveUp()


@pytest.mark.parametrize("key", ["", "k" * 256, "é", "a\nb", "\x7f", '"quoted"', "a\\b"])
def test_invalid_key_is_not_quoted(key: str) -> None:
    assert quoted(key) is None


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"\\'), min_size=1))
def test_key_is_sent_in_quotes_and_otherwise_unchanged(key: str) -> None:
    assert quoted(key[:255]) == f'"{key[:255]}"'


class Clock:
    """A clock that advances only by the requested waits."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_s += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    here = "relaybox.http.client._client"
    monkeypatch.setattr(f"{here}.sleep", clock.sleep)
    monkeypatch.setattr(f"{here}.monotonic", lambda: clock.now_s)
    monkeypatch.setattr(f"{here}.random", lambda: 0.5)
    return clock


class Lost:
    """Raised after the request was executed, in place of its response."""


Told: TypeAlias = Response | type[Lost]


class Line(httpx.AsyncBaseTransport):
    """A connection to an application that stores responses by key, after a script of other responses."""

    def __init__(self) -> None:
        #: What to respond before the stored response, in this order.
        self.first: list[Told] = []
        self.received: list[tuple[str, str, bytes]] = []
        self._kept: dict[str, bytes] = {}
        app = FastAPI()
        app.add_api_route("/orders", self._take, methods=["POST"])
        self._app = httpx.ASGITransport(app)

    async def _take(self, request: Request) -> Response:
        body, key = await request.body(), request.headers["idempotency-key"]
        self.received.append((key, request.headers.get("content-type", ""), body))
        told = self.first.pop(0) if self.first else None
        if isinstance(told, Response):
            return told
        if key in self._kept and self._kept[key] != body:
            return Response(b'{"error_code": "IDEMPOTENCY_KEY_REUSED"}', status_code=422)
        replayed = {"Idempotent-Replayed": "true"} if key in self._kept else {}
        self._kept[key] = body
        return Response(b"done", status_code=201, headers=replayed | ({"X-Lost": "1"} if told else {}))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._app.handle_async_request(request)
        if "X-Lost" in answer.headers:
            raise httpx.ReadError("", request=request)
        return answer

    @property
    def executed(self) -> int:
        """Return the number of executed requests."""
        return len(self._kept)


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
async def http(line: Line) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=line, base_url="http://test") as http:
        yield http


@pytest.fixture
def client(http: httpx.AsyncClient) -> IdempotentClient:
    return IdempotentClient(http, attempts_max=4)


async def test_request_with_a_lost_response_is_retried_and_executed_once(
    line: Line, client: IdempotentClient, clock: Clock
) -> None:
    line.first = [Lost]
    answer = await client.request("POST", "/orders", key="a", json={"n": 1})
    assert (answer.status_code, answer.headers["idempotent-replayed"]) == (201, "true")
    assert line.received == [('"a"', "application/json", b'{"n":1}')] * 2
    assert line.executed == 1
    assert clock.waits == [0.25]


async def test_each_request_has_its_own_key(line: Line, client: IdempotentClient) -> None:
    line.first = [Lost, Lost]
    for _ in range(2):
        assert (await client.request("POST", "/orders")).status_code == 201
    keys = [key for key, _, _ in line.received]
    assert (keys[0] == keys[1] == keys[2], keys[3] == keys[0]) == (True, False)
    assert all(UUID(key.strip('"')).version == 4 for key in keys)


async def test_request_in_flight_is_retried_after_retry_after(
    line: Line, client: IdempotentClient, clock: Clock
) -> None:
    line.first = [Lost, Response(IN_FLIGHT, status_code=409, headers={"Retry-After": "1"})]
    answer = await client.request("POST", "/orders", key="a")
    assert (answer.status_code, answer.headers["idempotent-replayed"]) == (201, "true")
    assert clock.waits == [0.25, 1.0]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_server_error_is_retried(line: Line, client: IdempotentClient, status: int) -> None:
    line.first = [Response(status_code=status)]
    assert (await client.request("POST", "/orders")).status_code == 201


async def test_date_in_retry_after_is_relative_to_the_servers_date(
    line: Line, client: IdempotentClient, clock: Clock
) -> None:
    headers = {"Date": "Fri, 02 Jan 1970 03:04:05 GMT", "Retry-After": "Fri, 02 Jan 1970 03:04:12 GMT"}
    line.first = [Response(status_code=503, headers=headers)]
    assert (await client.request("POST", "/orders")).status_code == 201
    assert clock.waits == [7.0]


async def test_retry_after_date_is_relative_to_local_time_without_date_header(
    line: Line, client: IdempotentClient, clock: Clock
) -> None:
    past = f"{datetime.now(UTC) - timedelta(days=1):%a, %d %b %Y %H:%M:%S GMT}"
    line.first = [Response(status_code=503, headers={"Retry-After": past})]
    assert (await client.request("POST", "/orders")).status_code == 201
    assert clock.waits == [0.0]


async def test_reused_key_is_reported_without_a_retry(
    line: Line, client: IdempotentClient, clock: Clock
) -> None:
    await client.request("POST", "/orders", key="a", content=b"1")
    answer = await client.request("POST", "/orders", key="a", content=b"2")
    assert (answer.status_code, answer.json()["error_code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert (len(line.received), clock.waits) == (2, [])


async def test_conflict_of_the_application_is_not_retried(line: Line, client: IdempotentClient) -> None:
    line.first = [Response(b'{"error_code": "DUPLICATE_COMMAND"}', status_code=409)]
    assert (await client.request("POST", "/orders")).json() == {"error_code": "DUPLICATE_COMMAND"}
    assert len(line.received) == 1


async def test_last_response_is_returned_when_attempts_run_out(
    line: Line, client: IdempotentClient, clock: Clock
) -> None:
    line.first = [Response(status_code=500), *(Response(status_code=503) for _ in range(9))]
    assert (await client.request("POST", "/orders")).status_code == 503
    assert (len(line.received), len(clock.waits)) == (4, 3)


async def test_error_without_a_response_has_the_key(line: Line, client: IdempotentClient) -> None:
    line.first = [Lost] * 4
    with capture_logs() as lines, pytest.raises(ResponseUnknown) as unknown:
        await client.request("POST", "/orders", content=b"1")
    error = unknown.value
    assert (error.attempts, isinstance(error.__cause__, httpx.ReadError)) == (4, True)
    assert error.key not in f"{error} {error!r} {error.__cause__!r} {lines}"
    answer = await client.request("POST", "/orders", key=error.key, content=b"1")
    assert (answer.headers["idempotent-replayed"], line.executed) == ("true", 1)


async def test_wait_beyond_the_total_time_is_not_started(
    line: Line, http: httpx.AsyncClient, clock: Clock
) -> None:
    line.first = [Response(status_code=503, headers={"Retry-After": after}) for after in ("6", "5")]
    answer = await IdempotentClient(http, total_s_max=10).request("POST", "/orders")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert clock.waits == [6.0]


async def test_attempt_ends_with_the_total_time() -> None:
    """The time limits of httpx do not end a response that begins and never ends."""

    async def hang(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with httpx.AsyncClient(transport=httpx.MockTransport(hang)) as http:
        with pytest.raises(ResponseUnknown) as unknown:
            await IdempotentClient(http, total_s_max=0.01).request("POST", "http://test/orders")
    assert unknown.value.attempts == 1


async def test_invalid_address_is_reported_without_a_retry(clock: Clock) -> None:
    async with httpx.AsyncClient() as http:
        with pytest.raises(httpx.UnsupportedProtocol):
            await IdempotentClient(http).request("POST", "orders")
    assert clock.waits == []


class Pipe(BytesIO):
    """A file that can be read once."""

    def seek(self, offset: int, whence: int = 0) -> int:
        raise UnsupportedOperation


@pytest.mark.parametrize("kind", [BytesIO, Pipe])
async def test_multipart_is_encoded_once(line: Line, client: IdempotentClient, kind: type[BytesIO]) -> None:
    line.first = [Lost, Response(status_code=503)]
    files = {"file": ("a.txt", kind(b"text"))}
    answer = await client.request("POST", "/orders", data={"n": "1"}, files=files)
    assert answer.headers["idempotent-replayed"] == "true"
    first, *others = line.received
    assert others == [first] * 2
    assert b"text" in first[2]
    assert first[1].startswith("multipart/form-data; boundary=")


def generated() -> Iterator[bytes]:
    yield b"1"


async def generated_slowly() -> AsyncIterator[bytes]:
    yield b"1"


@pytest.mark.parametrize("body", [generated, generated_slowly, lambda: BytesIO(b"1"), lambda: [b"1"]])
async def test_body_that_can_be_sent_only_once_is_refused(
    line: Line, client: IdempotentClient, body: Callable[[], Any]
) -> None:
    with pytest.raises(BodyNotRepeatable, match="read it into memory"):
        await client.request("POST", "/orders", content=body())
    assert line.received == []


async def test_key_that_cannot_be_sent_is_refused_and_not_shown(line: Line, client: IdempotentClient) -> None:
    with pytest.raises(KeyUnusable) as refused:
        await client.request("POST", "/orders", key="ann's ключ")
    assert "ann" not in f"{refused.value!r}"
    assert line.received == []


@pytest.mark.parametrize("header", ["idempotency-key", "X-Idempotency-Key"])
async def test_second_key_in_a_header_is_refused(line: Line, client: IdempotentClient, header: str) -> None:
    with pytest.raises(KeyUnusable, match="pass the key as key="):
        await client.request("POST", "/orders", key="a", headers={header: "b"})
    assert line.received == []
