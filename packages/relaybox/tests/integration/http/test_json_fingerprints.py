"""Keyed JSON requests are compared by the value of their bodies, on a real PostgreSQL."""

import hashlib

import httpx2 as httpx
from relaybox.idempotency import fingerprint_of

from tests.fixtures.shop import Shop


async def test_same_json_in_another_order_of_members_is_a_replay(shop: Shop, ann: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    first = await ann.post("/orders", content=b'{"article": "tea", "then": "answer"}', headers=headers)
    again = await ann.post("/orders", content=b'{"then":"answer","article":"\\u0074ea"}', headers=headers)
    other = await ann.post("/orders", content=b'{"then":"answer","article":"tee"}', headers=headers)
    assert (first.status_code, again.status_code, other.status_code) == (201, 201, 422)
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    assert await shop.counts() == (1, 1, 1)


async def test_response_stored_by_bytes_before_an_upgrade_is_replayed(
    shop: Shop, ann: httpx.AsyncClient
) -> None:
    body, headers = b'{"article": "tea"}', {"Content-Type": "application/json", "Idempotency-Key": "k"}
    first = await ann.post("/orders", content=body, headers=headers)
    by_bytes = fingerprint_of("POST", "/orders", b"", "application/json", hashlib.sha256(body).digest())
    await shop.superuser.execute(
        "UPDATE idempotency_cache SET result = jsonb_set(result, '{fingerprint}', to_jsonb($1::text))",
        by_bytes,
    )
    again = await ann.post("/orders", content=body, headers=headers)
    assert (again.status_code, again.content) == (201, first.content)
    reordered = await ann.post("/orders", content=b'{"article":"tea"}', headers=headers)
    assert reordered.status_code == 422
