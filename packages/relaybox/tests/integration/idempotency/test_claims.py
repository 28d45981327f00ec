"""``claim`` locks a key and returns its stored response; every body is found, wherever it is stored."""

import asyncio
from typing import Any

import pytest
from relaybox.idempotency import IdempotencyStore, RequestInFlight, StoredResponse

from tests.fixtures.stores import PostgresStores, Stores
from tests.fixtures.waiting import eventually

RESULT: dict[str, Any] = {"status": 201, "fingerprint": "1.abc"}
#: Expired when the next statement reads it.
AT_ONCE_S = 0.001
APART = 513 * b"x"


async def keep(stores: Stores, result: dict[str, Any], **options: Any) -> None:
    """Store *result* under the key "k" as one whole request does."""
    store = stores.open_store()
    assert await store.claim("k") is None
    assert await store.cache_idempotency_result("k", result, **options)
    await store.commit()
    await store.release()


async def claimed(stores: Stores, **options: Any) -> StoredResponse | None:
    """Return what another request finds, which then releases the key."""
    store = stores.open_store()
    try:
        return await store.claim("k", **options)
    finally:
        await store.release()


@pytest.mark.guarantee("G62")
async def test_new_key_is_locked_and_has_no_response(stores: Stores) -> None:
    holder = stores.open_store()
    assert await holder.claim("k") is None
    assert await stores.open_store().try_lock("k") is False
    assert await stores.open_store().try_lock("another") is True


@pytest.mark.guarantee("G62")
async def test_used_key_is_locked_and_its_response_returned(stores: Stores) -> None:
    await keep(stores, {**RESULT, "body": b"made"}, ttl=100)
    holder = stores.open_store()
    stored = await holder.claim("k")
    assert stored is not None
    assert (stored.result, stored.body) == (RESULT, b"made")
    assert stored.document() == {**RESULT, "body": b"made"}
    assert stored.age_s >= 0
    assert await stores.open_store().try_lock("k") is False
    found = await stores.open_store().find("k")
    assert found is not None
    assert (found.created_at, found.expires_at) == (stored.created_at, stored.expires_at)


@pytest.mark.guarantee("G62")
async def test_locked_key_is_in_flight(stores: Stores) -> None:
    holder = stores.open_store()
    assert await holder.claim("k") is None
    with pytest.raises(RequestInFlight):
        await claimed(stores)
    await holder.cache_idempotency_result("k", RESULT)
    with pytest.raises(RequestInFlight):
        await claimed(stores)
    await holder.commit()
    stored = await claimed(stores)
    assert stored is not None


@pytest.mark.guarantee("G62")
async def test_key_locked_by_try_lock_is_in_flight(stores: Stores) -> None:
    holder = stores.open_store()
    assert await holder.try_lock("k")
    with pytest.raises(RequestInFlight):
        await claimed(stores)
    assert await holder.claim("k") is None, "it is still its own"
    await holder.release()
    assert await claimed(stores) is None


@pytest.mark.guarantee("G62")
async def test_refused_claim_does_not_release_the_key(stores: Stores) -> None:
    holder, late = stores.open_store(), stores.open_store()
    assert await holder.claim("k") is None
    for _ in range(2):
        with pytest.raises(RequestInFlight):
            await late.claim("k")
    await late.commit()
    with pytest.raises(RequestInFlight):
        await claimed(stores)
    await holder.release()
    assert await late.claim("k") is None


@pytest.mark.guarantee("G62")
async def test_one_of_64_concurrent_claims_gets_the_key(stores: Stores) -> None:
    begin = asyncio.Event()

    async def come(store: IdempotencyStore) -> str:
        await store.find("warm")
        await begin.wait()
        try:
            return "new" if await store.claim("k") is None else "kept"
        except RequestInFlight:
            return "in flight"

    async with asyncio.TaskGroup() as group:
        comers = [group.create_task(come(stores.open_store())) for _ in range(64)]
        begin.set()
    assert sorted(comer.result() for comer in comers) == ["in flight"] * 63 + ["new"]


@pytest.mark.guarantee("G63")
@pytest.mark.parametrize("tries", range(20))
async def test_holder_after_another_one_sees_its_response(stores: Stores, tries: int) -> None:
    """The snapshot is younger than the lock: a claim during COMMIT is in flight or a replay, never new."""
    first, second = stores.open_store(), stores.open_store()
    assert await first.claim("k") is None
    await first.cache_idempotency_result("k", {"n": tries})
    await second.find("warm")

    async def come() -> StoredResponse | None:
        while True:
            try:
                return await second.claim("k")
            except RequestInFlight:
                await second.find("warm")

    stored, _ = await asyncio.gather(come(), first.commit())
    assert stored is not None
    assert stored.result == {"n": tries}


@pytest.mark.guarantee("G61")
async def test_claims_of_two_scopes_are_independent(stores: Stores) -> None:
    assert await stores.open_store().claim("k", scope="anna") is None
    assert await claimed(stores, scope="bert") is None
    with pytest.raises(RequestInFlight):
        await claimed(stores, scope="anna")


@pytest.mark.guarantee("G70")
@pytest.mark.parametrize("body", [b"first", APART], ids=["inside", "apart"])
async def test_expired_key_is_claimed_as_a_new_one(stores: Stores, body: bytes) -> None:
    await keep(stores, {"n": 1, "body": body}, ttl=AT_ONCE_S)

    async def expired() -> bool:
        return await claimed(stores) is None

    await eventually("expiry", expired)
    await keep(stores, {"n": 2})
    stored = await claimed(stores)
    assert stored is not None
    assert stored.document() == {"n": 2}


BODIES = {
    "empty": b"",
    "JSON": b'{"a": [1, null, "\\u00e9"]}',
    "512 bytes": b"x" * 512,
    "513 bytes": APART,
    "512 bytes of 256 letters": "é".encode() * 256,
    "513 bytes of 257 letters": "é".encode() * 256 + b"x",
    "one letter over the limit": b"x" * 511 + "é".encode(),
    "quotes and backslashes": b"\"'\\\\\" \\u0041 \\n \\\\u0000 \\x00 $1 %s {} '; --",
    "an escaped NUL": b"\\u0000",
    "control": bytes(range(1, 32)) + b"\x7f",
    "our mark": b"~b",
    "our mark in quotes": b'{"~b": true, "~t": "x"}',
    "our mark, long": b'"~b"' * 200,
    "unicode": "科幻 🚀 \u2028 \ufeff \uffff e\u0301".encode(),
    "NUL": b"\x00",
    "a text with NUL": b"a\x00b",
    "no text": b"\xff\xfe",
    "half a pair": b"\xed\xa0\x80",
    "half a letter": "é".encode()[:1],
    "overlong": b"\xc0\x80",
    "512 bytes of no text": b"\x80" * 512,
    "every byte": bytes(range(256)),
    "1 MiB": bytes(range(256)) * 4_096,
}


@pytest.mark.guarantee("G66")
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_every_body_is_stored_and_claimed_byte_by_byte(stores: Stores, body: bytes) -> None:
    await keep(stores, {**RESULT, "body": body})
    claim, found = await claimed(stores), await stores.open_store().find("k")
    assert claim is not None
    assert found is not None
    assert claim.document() == found.document() == {**RESULT, "body": body}
    assert claim.result == found.result == RESULT, "no name of ours is left"


@pytest.mark.guarantee("G66")
@pytest.mark.parametrize(
    "result",
    [
        {"a": "~b"},
        {"a": {"~b": True, "~t": "x"}, "body": "empty"},
        {"a": '"~b"', "body": b"text"},
        {"a": ["~b", "~t"], "body": APART},
    ],
    ids=["a value", "deep", "beside a text", "beside bytes"],
)
async def test_body_may_contain_reserved_markers(stores: Stores, result: dict[str, Any]) -> None:
    await keep(stores, result)
    stored = await claimed(stores)
    assert stored is not None
    assert stored.document() == result


async def test_result_with_a_reserved_name_is_refused(stores: Stores) -> None:
    with pytest.raises(ValueError, match="~t"):
        await stores.open_store().cache_idempotency_result("k", {"~t": "x"})
    assert await claimed(stores) is None


@pytest.mark.guarantee("G63")
async def test_uncommitted_response_is_not_claimed(
    postgres_stores: PostgresStores,
) -> None:
    holder = postgres_stores.open_store()
    assert await holder.claim("k") is None
    await holder.cache_idempotency_result("k", {**RESULT, "body": APART})
    await postgres_stores.kill(holder)
    assert await claimed(postgres_stores) is None
