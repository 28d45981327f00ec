"""The rules of idempotency keys over HTTP, on a real PostgreSQL: one effect and one response per key."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import asyncpg
import httpx2 as httpx
import pytest
from relaybox.http import make_token
from structlog.testing import capture_logs

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.shop import JWT, Shop

TEA = {"article": "tea"}
WRONG_KEYS = ["", '""', "a b", "a,b", '"open', "x" * 256, '"' + "x" * 256 + '"', "k\u00e9y", "a\tb", 'a"b']


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


async def order(client: httpx.AsyncClient, key: str | None, **changes: Any) -> httpx.Response:
    headers = {} if key is None else keyed(key)
    return await client.post("/orders", json=TEA | changes, headers=headers)


async def test_repeated_key_gets_the_same_response_and_one_effect(shop: Shop, ann: httpx.AsyncClient) -> None:
    first, again = await order(ann, "k"), await order(ann, "k")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert await shop.counts() == (1, 1, 1)


async def test_every_request_without_a_key_is_executed(shop: Shop, ann: httpx.AsyncClient) -> None:
    first, again = await order(ann, None), await order(ann, None)
    assert first.json() != again.json()
    assert await shop.counts() == (2, 2, 0)


@pytest.mark.guarantee("G60")
async def test_quoted_and_bare_keys_in_either_header_are_the_same_key(
    shop: Shop, ann: httpx.AsyncClient
) -> None:
    first = await order(ann, "k-1")
    for headers in (keyed('"k-1"'), {"X-Idempotency-Key": "k-1"}, {"X-Idempotency-Key": '"k-1"'}):
        again = await ann.post("/orders", json=TEA, headers=headers)
        assert again.content == first.content
    assert await shop.counts() == (1, 1, 1)


@pytest.mark.guarantee("G60")
@pytest.mark.parametrize("key", WRONG_KEYS)
async def test_malformed_key_is_refused_before_anything_is_written(
    shop: Shop, ann: httpx.AsyncClient, key: str
) -> None:
    raw = [(b"Idempotency-Key", key.encode())]
    refused = await ann.post("/orders", json=TEA, headers=raw)
    assert refused.status_code == 400
    assert refused.json()["error_code"] == "IDEMPOTENCY_KEY_INVALID"
    assert await shop.counts() == (0, 0, 0)
    assert shop.outcome_count("malformed") == 1


@pytest.mark.guarantee("G60")
@pytest.mark.parametrize("names", [("Idempotency-Key",) * 2, ("Idempotency-Key", "X-Idempotency-Key")])
async def test_several_keys_are_refused(shop: Shop, ann: httpx.AsyncClient, names: tuple[str, str]) -> None:
    refused = await ann.post("/orders", json=TEA, headers=[(name, "k") for name in names])
    assert refused.json()["error_code"] == "IDEMPOTENCY_KEY_INVALID"


async def test_required_key_is_checked_before_any_work(shop: Shop, ann: httpx.AsyncClient) -> None:
    refused = await ann.post("/required", json=TEA)
    assert (refused.status_code, refused.json()["error_code"]) == (400, "IDEMPOTENCY_KEY_MISSING")
    assert await shop.counts() == (0, 0, 0)
    taken = await ann.post("/required", json=TEA, headers=keyed("k"))
    assert taken.status_code == 201


async def test_endpoint_without_support_for_keys_reports_ignored(ann: httpx.AsyncClient) -> None:
    answer = await ann.post("/plain", json=TEA, headers=keyed("k"))
    assert answer.headers["idempotency-status"] == "ignored"
    assert "idempotency-status" not in (await ann.post("/plain", json=TEA)).headers
    assert "idempotency-status" not in (await order(ann, "k")).headers


@pytest.mark.guarantee("G62")
async def test_key_in_use_is_refused_at_once(shop: Shop, ann: httpx.AsyncClient) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def pause() -> None:
        reached.set()
        await go_on.wait()

    shop.pause = pause
    running = asyncio.create_task(order(ann, "k"))
    await reached.wait()
    second = asyncio.create_task(order(ann, "k"))
    ended, _ = await asyncio.wait({second}, timeout=WAIT_S)
    assert ended, "the second waits, or does the work too"
    refused = await second
    assert (refused.status_code, refused.json()["error_code"]) == (409, "REQUEST_IN_FLIGHT")
    assert refused.headers["retry-after"] == "1"
    go_on.set()
    first = await running
    again = await order(ann, "k")
    assert again.content == first.content
    assert await shop.counts() == (1, 1, 1)
    assert (
        shop.outcome_count("executed"),
        shop.outcome_count("in_flight"),
        shop.outcome_count("replayed"),
    ) == (1, 1, 1)


@pytest.mark.guarantee("G62")
@pytest.mark.parametrize(
    "other",
    [
        {"json": {"article": "coffee"}},
        {"json": TEA, "params": {"express": "1"}},
        {"json": TEA, "method": "PUT"},
        {"json": TEA, "url": "/other-orders"},
    ],
    ids=["body", "query", "method", "route"],
)
async def test_other_request_with_the_same_key_is_refused(
    shop: Shop, ann: httpx.AsyncClient, other: dict[str, Any]
) -> None:
    first = await ann.post("/orders", content=b'{"article": "tea"}', headers=_json("k"))
    request: dict[str, Any] = {"method": "POST", "url": "/orders", "headers": _json("k"), **other}
    if "json" in request:
        request["content"] = b'{"article": "%s"}' % request.pop("json")["article"].encode()
    refused = await ann.request(**request)
    assert refused.status_code == 422
    assert refused.json()["error_code"] == "IDEMPOTENCY_KEY_REUSED"
    assert first.status_code == 201
    assert await shop.counts() == (1, 1, 1)
    assert shop.outcome_count("mismatch") == 1


def _json(key: str) -> dict[str, str]:
    return {**keyed(key), "Content-Type": "application/json; charset=utf-8"}


@pytest.mark.guarantee("G62")
async def test_query_order_and_content_type_parameters_keep_the_fingerprint(
    shop: Shop, ann: httpx.AsyncClient
) -> None:
    body = b'{"article": "tea"}'
    first = await ann.post("/orders?a=1&b=2", content=body, headers=_json("k"))
    plain = {**keyed("k"), "Content-Type": "Application/JSON"}
    again = await ann.post("/orders?b=2&a=1", content=body, headers=plain)
    assert (again.status_code, again.content) == (201, first.content)


@pytest.mark.guarantee("G61")
async def test_refreshed_token_is_the_same_principal(shop: Shop, ann: httpx.AsyncClient) -> None:
    first = await order(ann, "k")
    refreshed = {"Authorization": f"Bearer {make_token(JWT, 'ann', ttl_s=60)}"}
    again = await ann.post("/orders", json=TEA, headers={**keyed("k"), **refreshed})
    assert again.content == first.content
    async with shop.client("bob") as bob:
        his = await order(bob, "k")
    assert his.status_code == 201
    assert his.json() != first.json()
    assert await shop.counts() == (2, 2, 2)


@pytest.mark.guarantee("G65")
@pytest.mark.parametrize(
    "then", ["400", "401", "403", "404", "409", "413", "415", "422", "429", "500", "503"]
)
async def test_error_response_is_not_stored_and_its_effect_rolled_back(
    shop: Shop, ann: httpx.AsyncClient, then: str
) -> None:
    refused = await order(ann, "k", then=then)
    assert refused.status_code == int(then)
    assert await shop.counts() == (0, 0, 0)
    taken = await order(ann, "k")
    assert taken.status_code == 201
    assert await shop.counts() == (1, 1, 1)


@pytest.mark.guarantee("G65")
async def test_exception_or_invalid_response_leaves_the_key_unused(
    shop: Shop, ann: httpx.AsyncClient
) -> None:
    assert (await order(ann, "k", then="raise")).status_code == 500
    assert (await order(ann, "k", article="")).status_code == 422
    assert await shop.counts() == (0, 0, 0)
    assert (await order(ann, "k")).status_code == 201


@pytest.mark.guarantee("G67")
@pytest.mark.parametrize("then", ["text", "bytes", "see-other", "headers"])
async def test_replay_of_any_content_type_has_the_same_bytes(
    shop: Shop, ann: httpx.AsyncClient, then: str
) -> None:
    first, again = await order(ann, "k", then=then), await order(ann, "k", then=then)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers.get("content-type") == first.headers.get("content-type")
    assert again.headers.get("location") == first.headers.get("location")
    assert await shop.counts() == (1, 1, 1)


@pytest.mark.guarantee("G67")
async def test_response_without_a_body_is_replayed(shop: Shop, ann: httpx.AsyncClient) -> None:
    first, again = [await ann.post("/no-body", headers=keyed("k")) for _ in range(2)]
    assert (first.status_code, again.status_code, again.content) == (204, 204, b"")
    assert again.headers["idempotent-replayed"] == "true"
    assert await shop.counts() == (1, 1, 1)


@pytest.mark.guarantee("G67")
async def test_body_read_as_a_stream_is_in_the_fingerprint(shop: Shop, ann: httpx.AsyncClient) -> None:
    first, again = [await ann.post("/upload", content=b"tea", headers=keyed("k")) for _ in range(2)]
    assert (first.status_code, again.content) == (201, first.content)
    refused = await ann.post("/upload", content=b"coffee", headers=keyed("k"))
    assert refused.json()["error_code"] == "IDEMPOTENCY_KEY_REUSED"


@pytest.mark.guarantee("G66")
async def test_replay_repeats_only_the_listed_headers(shop: Shop, ann: httpx.AsyncClient) -> None:
    first = await order(ann, "k", then="headers")
    again = await order(ann, "k", then="headers")
    kept = ("content-language", "location", "content-location", "etag", "last-modified", "link")
    assert {name: again.headers[name] for name in kept} == {name: first.headers[name] for name in kept}
    assert "set-cookie" in first.headers
    for name in ("set-cookie", "date", "ratelimit", "retry-after", "www-authenticate", "server-timing"):
        assert name not in again.headers
    assert again.headers["x-request-id"] not in (first.headers["x-request-id"], "of-the-first")
    assert len(again.headers.get_list("x-request-id")) == 1


@pytest.mark.guarantee("G67")
async def test_response_over_the_limit_leaves_a_tombstone(shop: Shop, ann: httpx.AsyncClient) -> None:
    first = await order(ann, "k", then="large")
    assert (first.status_code, len(first.content)) == (201, 5_000)
    again = await order(ann, "k", then="large")
    assert (again.status_code, again.json()["error_code"]) == (410, "RESPONSE_NOT_KEPT")
    assert again.json()["original_status"] == 201
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotent-replayed"] == "true"
    assert await shop.counts() == (1, 1, 1)
    assert shop.outcome_count("tombstone") == 1


@pytest.mark.guarantee("G67")
async def test_streaming_response_is_refused_and_its_effect_rolled_back(
    shop: Shop, ann: httpx.AsyncClient
) -> None:
    for key in ("k", None):
        refused = await order(ann, key, then="stream")
        assert refused.status_code == 500
        assert refused.json()["error_code"] == "ANSWER_UNKEEPABLE"
    assert await shop.counts() == (0, 0, 0)


@pytest.mark.guarantee("G68")
async def test_caller_without_permission_gets_no_replay(shop: Shop, ann: httpx.AsyncClient) -> None:
    first = await order(ann, "k")
    shop.banned.add("ann")
    refused = await order(ann, "k")
    assert refused.status_code == 403
    assert first.json()["id"] not in refused.text
    refused = await ann.post("/orders", json=TEA, headers={**keyed("k"), "Authorization": "Bearer x"})
    assert refused.status_code == 401


@pytest.mark.guarantee("G70")
async def test_expiry_is_published_and_an_expired_key_executes_again(
    shop: Shop, ann: httpx.AsyncClient
) -> None:
    first = await order(ann, "k")
    assert first.headers["idempotency-expires"].endswith("GMT")
    again = await order(ann, "k")
    published = [parsedate_to_datetime(one.headers["idempotency-expires"]) for one in (first, again)]
    assert timedelta(0) <= published[1] - published[0] < timedelta(minutes=1)
    assert published[0] > datetime.now(UTC) + timedelta(hours=23)
    await shop.superuser.execute("UPDATE idempotency_cache SET expires_at = now() - interval '1 s'")
    after = await order(ann, "k", article="coffee")
    assert after.status_code == 201
    assert "idempotent-replayed" not in after.headers
    assert (await order(ann, "k", article="coffee")).content == after.content
    assert await shop.counts() == (2, 2, 1)


async def test_endpoint_can_have_its_own_ttl(shop: Shop, ann: httpx.AsyncClient) -> None:
    await ann.post("/required", json=TEA, headers=keyed("k"))
    kept = "SELECT extract(epoch FROM expires_at - created_at) FROM idempotency_cache"
    assert 3_599 < await shop.superuser.fetchval(kept) < 3_601


@pytest.mark.guarantee("G71")
async def test_keys_are_not_logged_and_only_stored_as_hashes(shop: Shop, ann: httpx.AsyncClient) -> None:
    key = "a-key-that-must-not-be-seen"
    with capture_logs() as lines:
        for then in ("answer", "answer", "raise"):
            await order(ann, key, then=then)
        await order(ann, key + "\x7f")
    assert lines
    assert key not in repr(lines)
    row = await shop.superuser.fetchrow("SELECT key, result::text FROM idempotency_cache")
    assert key not in repr(tuple(row))
    assert '"fingerprint": "2.' in row["result"]


@pytest.mark.guarantee("G71")
async def test_outcomes_are_counted_by_route_and_replays_have_an_age(
    shop: Shop, ann: httpx.AsyncClient
) -> None:
    for key in ("a", "a", None):
        await order(ann, key)
    await order(ann, "b", then="409")
    await ann.post("/plain", json=TEA, headers=keyed("k"))
    await ann.post("/required", json=TEA)
    figures = (await ann.get("/metrics")).text
    for route, outcome in (
        ("/orders", "executed"),
        ("/orders", "replayed"),
        ("/orders", "refused"),
        ("/plain", "ignored"),
        ("/required", "missing"),
    ):
        line = f'relaybox_idempotent_requests_total{{outcome="{outcome}",route="{route}"}} 1.0'
        assert line in figures, figures
    assert "relaybox_idempotency_replay_age_seconds_count 1.0" in figures


async def test_auto_endpoint_generates_a_key_from_the_request(shop: Shop, ann: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json"}
    first = await ann.post("/auto", content=b'{"article": "tea", "n": 1}', headers=headers)
    again = await ann.post("/auto", content=b'{"n": 1,  "article": "tea"}', headers=headers)
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    other = await ann.post("/auto", json={"article": "tea", "n": 2})
    elsewhere = await ann.post("/auto?n=3", json={"article": "tea", "n": 1})
    own_key = await ann.post("/auto", json={"article": "tea", "n": 1}, headers=keyed("k"))
    async with shop.client("bob") as bob:
        his = await bob.post("/auto", json={"article": "tea", "n": 1})
    assert len({one.content for one in (first, other, elsewhere, own_key, his)}) == 5


async def test_unit_without_a_key_commits_before_its_response_is_sent(
    shop: Shop, ann: httpx.AsyncClient, superuser: asyncpg.Connection
) -> None:
    answered = await ann.request("DELETE", "/orders", json=TEA)
    assert answered.status_code == 200
    assert await shop.counts() == (1, 1, 0)


@pytest.mark.guarantee("G67")
async def test_response_compressed_inside_is_refused(shop: Shop, ann: httpx.AsyncClient) -> None:
    refused = await order(ann, "k", then="compressed")
    assert (refused.status_code, refused.json()["error_code"]) == (500, "ANSWER_UNKEEPABLE")
    assert "IdempotencyMiddleware" in refused.json()["message"]
    assert await shop.counts() == (0, 0, 0)
    assert (await order(ann, None, then="compressed")).status_code == 201


async def test_error_may_be_streamed_after_its_effect_is_rolled_back(
    shop: Shop, ann: httpx.AsyncClient
) -> None:
    refused = await order(ann, "k", then="streamed-error")
    assert (refused.status_code, refused.content) == (409, b"no!")
    assert await shop.counts() == (0, 0, 0)


@pytest.mark.guarantee("G63")
async def test_error_of_postgresql_in_an_endpoint_has_its_usual_response(
    shop: Shop, ann: httpx.AsyncClient, superuser: asyncpg.Connection
) -> None:
    async with superuser.transaction():
        await superuser.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        busy = await order(ann, "k")
    assert (busy.status_code, busy.json()["error_code"]) == (503, "DATABASE_BUSY")
    assert busy.headers["retry-after"] == "1"
    assert (await order(ann, "k")).status_code == 201
