"""Behaviour that only the store in Redis has: its leases, its key names, its failures."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LinkBroken
from redis.exceptions import ResponseError
from relaybox.idempotency import StoreUnavailable
from relaybox.idempotency.redis import RedisIdempotencyService
from structlog.testing import capture_logs

from tests.fixtures.outages import frozen, stopped
from tests.fixtures.redis_server import RedisServer
from tests.fixtures.stores import SETTINGS, RedisStores
from tests.fixtures.waiting import eventually

RESULT = {"status": 201, "body": b"made"}


@pytest.fixture
def store(redis_stores: RedisStores) -> RedisIdempotencyService:
    store = redis_stores.open_store()
    assert isinstance(store, RedisIdempotencyService)
    return store


async def names(client: Redis, prefix: str) -> list[str]:
    return sorted([name.decode() async for name in client.scan_iter(f"{prefix}*")])


async def test_client_that_decodes_responses_is_refused(redis_server: RedisServer) -> None:
    async with Redis(host=redis_server.host, port=redis_server.port, decode_responses=True) as client:
        with pytest.raises(ValueError, match="decode_responses=False"):
            RedisIdempotencyService(client, settings=SETTINGS)


@pytest.mark.parametrize("lease_s", [0, -1, float("inf"), float("nan")])
async def test_lease_has_an_end(redis_client: Redis, lease_s: float) -> None:
    with pytest.raises(ValueError, match="lease_s"):
        RedisIdempotencyService(redis_client, settings=SETTINGS, lease_s=lease_s)


async def test_keys_and_principals_are_stored_hashed_and_all_expire(
    store: RedisIdempotencyService, redis_client: Redis, redis_prefix: str
) -> None:
    assert await store.try_lock("a-clients-key", scope="anna")
    await store.cache_idempotency_result("a-clients-key", RESULT, scope="anna")
    answer, lock = await names(redis_client, redis_prefix)
    # Braces: both keys are on one node of a cluster, because scripts use both.
    assert answer.startswith(f"{redis_prefix}:{{")
    assert answer.endswith("}")
    assert lock == f"{answer}:lock"
    assert "anna" not in answer
    assert "key" not in answer
    assert 86_000_000 < await redis_client.pttl(answer) <= 86_400_001
    assert 0 < await redis_client.pttl(lock) <= 600_000
    await store.release()
    assert await names(redis_client, redis_prefix) == [answer]


@pytest.mark.guarantee("G69")
async def test_holder_without_lease_does_not_overwrite_the_next_response(
    redis_stores: RedisStores,
) -> None:
    """Its effect has occurred: Redis cannot undo it, PostgreSQL would."""
    redis_stores.lease_s = 0.05
    frozen_one = redis_stores.open_store()
    assert await frozen_one.try_lock("k")
    redis_stores.lease_s = 600
    next_one = redis_stores.open_store()
    await eventually("the end of the lease", lambda: next_one.try_lock("k"))
    assert await frozen_one.cache_idempotency_result("k", {"n": 1}) is False
    assert await frozen_one.try_lock("k") is False
    assert await next_one.cache_idempotency_result("k", {"n": 2}) is True
    assert await frozen_one.check_idempotency_key("k") == {"n": 2}


@pytest.mark.guarantee("G69")
async def test_holder_without_lease_does_not_release_the_next_lock(
    redis_stores: RedisStores,
) -> None:
    redis_stores.lease_s = 0.05
    frozen_one = redis_stores.open_store()
    assert await frozen_one.try_lock("k")
    redis_stores.lease_s = 600
    next_one = redis_stores.open_store()
    await eventually("the end of the lease", lambda: next_one.try_lock("k"))
    await frozen_one.commit()
    await frozen_one.release()
    assert not await redis_stores.open_store().try_lock("k")


async def test_holder_without_lease_stores_its_response_if_none_came_after(
    redis_stores: RedisStores, redis_client: Redis, redis_prefix: str
) -> None:
    holder = redis_stores.open_store()
    assert await holder.try_lock("k")
    await redis_client.delete(*await names(redis_client, redis_prefix))
    assert await holder.cache_idempotency_result("k", RESULT) is True


class Forgetful(Connection):
    """A connection that breaks on demand after the server has executed the command."""

    forget = False

    async def read_response(self, *args: Any, **options: Any) -> Any:
        answer = await super().read_response(*args, **options)
        if type(self).forget:
            type(self).forget = False
            await self.disconnect()
            raise LinkBroken("lost on its way")
        return answer


@pytest.fixture
async def retrying(redis_server: RedisServer, redis_prefix: str) -> AsyncIterator[RedisIdempotencyService]:
    """Return a store whose client retries once when a response is lost, as Redis clients do by default."""
    pool = BlockingConnectionPool(
        connection_class=Forgetful,
        host=redis_server.host,
        port=redis_server.port,
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[LinkBroken],
    )
    async with Redis.from_pool(pool) as client:
        store = RedisIdempotencyService(client, settings=SETTINGS, prefix=redis_prefix)
        # The server already has the scripts, so the next lost response is that of the call under test.
        await store.try_lock("warm")
        await store.cache_idempotency_result("warm", RESULT)
        yield store
        await store.release()


async def test_lock_is_held_although_its_response_was_lost(retrying: RedisIdempotencyService) -> None:
    Forgetful.forget = True
    assert await retrying.try_lock("k") is True
    assert not Forgetful.forget


async def test_first_result_is_stored_although_its_response_was_lost(
    retrying: RedisIdempotencyService,
) -> None:
    Forgetful.forget = True
    assert await retrying.cache_idempotency_result("k", RESULT) is True
    assert not Forgetful.forget
    assert await retrying.cache_idempotency_result("k", RESULT) is False


async def everything_fails(store: RedisIdempotencyService, match: str) -> None:
    """Assert that every call raises the error for an unreachable store."""
    calls = [
        store.try_lock("k"),
        store.find("k"),
        store.check_idempotency_key("k"),
        store.cache_idempotency_result("k", RESULT),
        store.invalidate_key("k"),
        store.commit(),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match=match):
            await call


async def test_unreachable_redis_is_our_error_until_it_is_back(
    store: RedisIdempotencyService, redis_server: RedisServer
) -> None:
    assert await store.try_lock("k")
    async with stopped(redis_server):
        await everything_fails(store, "cannot be reached")
        with capture_logs() as logs:
            await store.release()
        assert [one["event"] for one in logs] == ["lock not released; it ends with its lease"]
    assert await store.try_lock("k")


async def test_silent_redis_is_our_error(
    redis_server: RedisServer, redis_prefix: str, stack: AsyncExitStack
) -> None:
    client = Redis(
        host=redis_server.host, port=redis_server.port, socket_timeout=0.05, retry=Retry(NoBackoff(), 0)
    )
    await stack.enter_async_context(client)
    store = RedisIdempotencyService(client, settings=SETTINGS, prefix=redis_prefix)
    assert await store.try_lock("k")
    with frozen(redis_server):
        await everything_fails(store, "cannot be reached")
    await store.release()


async def test_redis_without_memory_stores_nothing_in_part(
    store: RedisIdempotencyService, redis_client: Redis
) -> None:
    await redis_client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailable, match="OOM"):
            await store.cache_idempotency_result("k", RESULT)
    finally:
        await redis_client.config_set("maxmemory", "0")
    assert await store.find("k") is None


async def test_read_only_replica_is_our_error(
    store: RedisIdempotencyService, redis_client: Redis, redis_server: RedisServer
) -> None:
    await redis_client.execute_command("REPLICAOF", redis_server.host, "1")
    try:
        with pytest.raises(StoreUnavailable, match=r"READONLY|ReadOnly"):
            await store.try_lock("k")
        with pytest.raises(StoreUnavailable, match=r"READONLY|ReadOnly"):
            await store.invalidate_key("k")
    finally:
        await redis_client.execute_command("REPLICAOF", "NO", "ONE")


async def test_programming_error_is_not_reported_as_an_outage(
    store: RedisIdempotencyService, redis_client: Redis, redis_prefix: str
) -> None:
    await store.cache_idempotency_result("k", RESULT)
    [name] = await names(redis_client, redis_prefix)
    await redis_client.set(name, "another token")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await store.find("k")
