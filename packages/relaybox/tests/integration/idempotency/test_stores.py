"""Conformance of both stores of responses; where PostgreSQL and Redis differ, a test says how and why."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from relaybox.idempotency import Claim, IdempotencyStore, RequestInFlight, ResponseParts
from relaybox.settings import IdempotencySettings

from tests.fixtures.stores import SETTINGS, PostgresStores, RedisStores, Stores
from tests.fixtures.waiting import eventually

RESULT: dict[str, Any] = {"status": 201, "fingerprint": "1.abc", "headers": {"location": "/orders/1"}}
#: Expired when the next statement reads it; the shortest TTL that both clocks can represent.
AT_ONCE_S = 0.001


async def keep(stores: Stores, key: str = "k", result: Any = None, **options: Any) -> bool:
    """Store a result as one whole request does."""
    store = stores.open_store()
    kept = await store.cache_idempotency_result(key, result or RESULT, **options)
    await store.commit()
    await store.release()
    return kept


async def kept(stores: Stores, key: str = "k", scope: str = "") -> dict[str, Any] | None:
    """Return what another request finds."""
    store = stores.open_store()
    found = await store.check_idempotency_key(key, scope=scope)
    await store.release()
    return found


async def expired(stores: Stores, key: str = "k") -> bool:
    return await kept(stores, key) is None


async def locks(stores: Stores, key: str = "k", scope: str = "") -> bool:
    """Return whether another store can lock the key now; it releases the key at once."""
    store = stores.open_store()
    mine = await store.try_lock(key, scope=scope)
    await store.release()
    return mine


async def test_new_key_has_no_result(stores: Stores) -> None:
    store = stores.open_store()
    assert await store.check_idempotency_key("k") is None
    assert await store.find("k") is None


@pytest.mark.guarantee("G66")
@pytest.mark.parametrize(
    "body",
    [b"", b"\x00", b"a\x00b\xff\xfe", bytes(range(256)), "科幻 🚀".encode(), bytes(range(256)) * 4_096],
    ids=["empty", "NUL", "no text", "every byte", "unicode", "1 MiB"],
)
async def test_body_is_returned_byte_by_byte(stores: Stores, body: bytes) -> None:
    assert await keep(stores, result={**RESULT, "body": body})
    assert await kept(stores) == {**RESULT, "body": body}


@pytest.mark.guarantee("G66")
@pytest.mark.parametrize(
    "result",
    [
        {"status": 204},
        {},
        {"status": 200, "body": "text"},
        {"题": ["科幻", "\\u0000", "🚀"], "n": None, "deep": {"a": [1, 2.5, True, {"b": []}]}},
        {"large": 2**60, "small": -0.125},
    ],
    ids=["no body", "nothing", "a text is no body", "unicode", "numbers"],
)
async def test_json_result_is_returned_equal(stores: Stores, result: dict[str, Any]) -> None:
    assert await stores.open_store().cache_idempotency_result("other", RESULT)
    store = stores.open_store()
    assert await store.cache_idempotency_result("k", result)
    await store.commit()
    assert await kept(stores) == result
    stored = await stores.open_store().find("k")
    assert stored is not None
    assert stored.body is None


@pytest.mark.parametrize(
    "one",
    [float("nan"), float("inf"), "a\x00b", "\ud800", object()],
    ids=["NaN", "infinite", "NUL", "half a pair", "object"],
)
async def test_result_that_is_no_json_is_refused_before_it_is_stored(stores: Stores, one: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message depends on the writer of the JSON
        await stores.open_store().cache_idempotency_result("k", {"one": one})
    assert await keep(stores)


@pytest.mark.guarantee("G70")
async def test_stored_response_has_its_creation_and_expiry(stores: Stores) -> None:
    before = datetime.now(UTC)
    await keep(stores, ttl=100)
    after = datetime.now(UTC)
    stored = await stores.open_store().find("k")
    assert stored is not None
    # Both servers use the clock of this machine; Redis rounds up to milliseconds.
    assert before <= stored.created_at <= after
    assert (
        timedelta(0) <= stored.expires_at - stored.created_at - timedelta(seconds=100) < timedelta(seconds=9)
    )
    assert 0 <= stored.age_s <= (datetime.now(UTC) - before).total_seconds()


@pytest.mark.guarantee("G62")
async def test_first_response_stays(stores: Stores) -> None:
    assert await keep(stores, result={"n": 1, "body": b"first"}) is True
    assert await keep(stores, result={"n": 2, "body": b"second"}) is False
    assert await keep(stores, result={"n": 3}) is False
    assert await kept(stores) == {"n": 1, "body": b"first"}


@pytest.mark.guarantee("G62")
async def test_response_of_a_claim_is_kept_once(stores: Stores) -> None:
    claim = Claim(
        key="k", scope="anna", stored_key="stored", fingerprint="1.abc", ttl_s=100, body_bytes_max=100
    )
    store = stores.open_store()
    await store.keep(claim, ResponseParts(status=201, body=b"first"))
    await store.commit()
    with pytest.raises(RequestInFlight):
        await stores.open_store().keep(claim, ResponseParts(status=201, body=b"second"))
    stored = await stores.open_store().find("k", scope="anna")
    assert stored is not None
    assert stored.document()["body"] == b"first"


async def test_repeated_request_stores_one_response(stores: Stores) -> None:
    store = stores.open_store()
    assert await store.try_lock("k")
    assert await store.cache_idempotency_result("k", {"n": 1}) is True
    assert await store.cache_idempotency_result("k", {"n": 1}) is False
    assert await store.check_idempotency_key("k") == {"n": 1}


@pytest.mark.guarantee("G70")
@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        (None, 86_400),
        (90, 90),
        (0.5, 0.5),
        (timedelta(hours=2), 7_200),
        (timedelta(days=365), 31_536_000),
    ],
    ids=["by default 24 h", "number", "part of a second", "timedelta", "a year"],
)
async def test_key_is_stored_for_its_ttl(stores: Stores, ttl: Any, seconds: float) -> None:
    store = stores.open_store()
    assert await store.cache_idempotency_result("k", RESULT, ttl)
    stored = await store.find("k")
    assert stored is not None
    life = stored.expires_at - stored.created_at
    # PostgreSQL takes the time of creation from the beginning of the transaction.
    assert timedelta(seconds=seconds) <= life < timedelta(seconds=seconds + 9)


@pytest.mark.guarantee("G70")
async def test_default_ttl_is_that_of_the_settings(stores: Stores) -> None:
    store = stores.open_store(IdempotencySettings(ttl_h=0.5))
    assert await store.cache_idempotency_result("k", RESULT)
    stored = await store.find("k")
    assert stored is not None
    assert stored.expires_at - stored.created_at < timedelta(seconds=1_809)


@pytest.mark.parametrize(
    "ttl",
    [0, -1, timedelta(0), timedelta(seconds=-1), float("nan"), float("inf"), timedelta(days=366)],
    ids=str,
)
async def test_ttl_of_zero_or_over_a_year_is_refused(stores: Stores, ttl: Any) -> None:
    with pytest.raises(ValueError, match="ttl must be"):
        await stores.open_store().cache_idempotency_result("k", RESULT, ttl)


@pytest.mark.guarantee("G70")
async def test_expired_key_is_a_new_one(stores: Stores) -> None:
    await keep(stores, result={"n": 1, "body": b"first"}, ttl=AT_ONCE_S)
    await eventually("expiry", lambda: expired(stores))
    assert await keep(stores, result={"n": 2, "body": b"second"})
    assert await kept(stores) == {"n": 2, "body": b"second"}


@pytest.mark.guarantee("G70")
async def test_new_response_has_nothing_of_an_expired_one(stores: Stores) -> None:
    await keep(stores, result={"n": 1, "body": b"first"}, ttl=AT_ONCE_S)
    await eventually("expiry", lambda: expired(stores))
    assert await keep(stores, result={"n": 2})
    assert await kept(stores) == {"n": 2}


@pytest.mark.guarantee("G61")
async def test_scopes_are_separate(stores: Stores) -> None:
    await keep(stores, result={"n": 1}, scope="anna")
    assert await kept(stores, scope="anna") == {"n": 1}
    assert await kept(stores, scope="bert") is None
    assert await kept(stores) is None
    assert await keep(stores, result={"n": 2}, scope="bert")
    assert await stores.open_store().invalidate_key("k", scope="cleo") is False
    assert await kept(stores, scope="anna") == {"n": 1}


@pytest.mark.guarantee("G61")
async def test_scope_and_key_are_not_ambiguous_when_joined(stores: Stores) -> None:
    await keep(stores, key="bc", scope="a")
    assert await kept(stores, key="c", scope="ab") is None


@pytest.mark.guarantee("G61")
async def test_scopes_do_not_lock_each_other(stores: Stores) -> None:
    assert await stores.open_store().try_lock("k", scope="anna")
    assert await locks(stores, scope="bert")
    assert not await locks(stores, scope="anna")


async def test_other_secret_finds_no_response(stores: Stores) -> None:
    await keep(stores)
    other = SETTINGS.model_copy(update={"secret": SecretStr("another secret of thirty-two bytes")})
    assert await stores.open_store(other).find("k") is None


async def test_invalidated_key_is_a_new_one(stores: Stores) -> None:
    await keep(stores, result={"n": 1, "body": b"first"})
    store = stores.open_store()
    assert await store.invalidate_key("k") is True
    await store.commit()
    assert await kept(stores) is None
    assert await stores.open_store().invalidate_key("k") is False
    assert await keep(stores, result={"n": 2})
    assert await kept(stores) == {"n": 2}


@pytest.mark.guarantee("G62")
async def test_only_one_request_holds_a_key(stores: Stores) -> None:
    holder = stores.open_store()
    assert await holder.try_lock("k") is True
    assert await locks(stores) is False
    assert await locks(stores, "another") is True
    assert await holder.try_lock("k") is True, "it is still its own"


@pytest.mark.guarantee("G62")
async def test_key_is_released_by_commit(stores: Stores) -> None:
    holder = stores.open_store()
    assert await holder.try_lock("k")
    await holder.cache_idempotency_result("k", RESULT)
    await holder.commit()
    assert await locks(stores)


@pytest.mark.guarantee("G62")
async def test_key_is_released_by_close(stores: Stores) -> None:
    holder = stores.open_store()
    assert await holder.try_lock("k")
    assert await holder.try_lock("another")
    await holder.release()
    assert await locks(stores)
    assert await locks(stores, "another")


async def test_request_without_the_lock_does_not_release_it(stores: Stores) -> None:
    assert await stores.open_store().try_lock("k")
    late = stores.open_store()
    assert not await late.try_lock("k")
    await late.commit()
    await late.release()
    assert not await locks(stores)


async def test_lock_does_not_stop_a_store_that_never_locks(stores: Stores) -> None:
    """Commands do not lock their key: the first response stays, whichever store has the lock."""
    holder = stores.open_store()
    assert await holder.try_lock("k")
    assert await keep(stores, result={"n": 1}) is True
    assert await holder.cache_idempotency_result("k", {"n": 2}) is False
    assert await kept(stores) == {"n": 1}


@pytest.mark.guarantee("G62")
async def test_one_of_64_concurrent_holders_gets_the_key(stores: Stores) -> None:
    begin = asyncio.Event()

    async def come(store: IdempotencyStore) -> bool:
        await store.find("warm")
        await begin.wait()
        return await store.try_lock("k")

    async with asyncio.TaskGroup() as group:
        comers = [group.create_task(come(stores.open_store())) for _ in range(64)]
        begin.set()
    assert sorted(comer.result() for comer in comers) == [False] * 63 + [True]


@pytest.mark.guarantee("G63")
async def test_response_is_visible_together_with_its_effect(stores: Stores) -> None:
    """In Redis it is visible at once, because there is no common transaction."""
    holder = stores.open_store()
    await holder.try_lock("k")
    await holder.cache_idempotency_result("k", RESULT)
    assert await holder.check_idempotency_key("k") == RESULT
    assert await kept(stores) == (None if stores.transactional else RESULT)
    await holder.commit()
    assert await kept(stores) == RESULT


@pytest.mark.guarantee("G63")
async def test_uncommitted_result_is_not_stored(stores: Stores) -> None:
    """In Redis it is stored: if the effect was rolled back, the response is replayed nevertheless."""
    holder = stores.open_store()
    await holder.cache_idempotency_result("k", RESULT)
    await holder.release()
    assert await kept(stores) == (None if stores.transactional else RESULT)


@pytest.mark.guarantee("G63")
async def test_postgresql_frees_the_key_of_a_dead_holder_at_once(
    postgres_stores: PostgresStores,
) -> None:
    holder = postgres_stores.open_store()
    assert await holder.try_lock("k")
    await holder.cache_idempotency_result("k", RESULT)
    await postgres_stores.kill(holder)
    assert await locks(postgres_stores)
    assert await kept(postgres_stores) is None
    await holder.release()
    assert postgres_stores.connections_in_use() == 0, (
        "a broken connection does not stay out of the pool for ever"
    )


async def test_redis_keeps_the_key_of_a_dead_holder_until_its_lease_ends(
    redis_stores: RedisStores,
) -> None:
    """A lock belongs to a token: Redis cannot know that the process that has it is dead."""
    redis_stores.lease_s = 0.3
    holder = redis_stores.open_store()
    assert await holder.try_lock("k")
    await redis_stores.kill(holder)
    assert not await locks(redis_stores)
    await eventually("the end of the lease", lambda: locks(redis_stores))


async def test_cleanup_returns_the_number_of_expired_keys(postgres_stores: PostgresStores) -> None:
    for number in range(5):
        await keep(postgres_stores, f"short-{number}", ttl=AT_ONCE_S)
    await keep(postgres_stores, "long")
    await eventually("expiry", lambda: expired(postgres_stores, "short-4"))
    store = postgres_stores.open_store()
    assert await store.cleanup_expired() == 5
    await store.commit()
    assert await postgres_stores.open_store().cleanup_expired() == 0
    assert await kept(postgres_stores, "long") == RESULT


async def test_redis_deletes_expired_keys_itself(redis_stores: RedisStores) -> None:
    await keep(redis_stores, ttl=AT_ONCE_S)
    assert await redis_stores.open_store().cleanup_expired() == 0
    await eventually("expiry", lambda: expired(redis_stores))
