"""Expired responses are removed a few at a time; no request waits, and no live response is lost (G70)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from relaybox.db import BACKBONE, Database, Executor, migrate_up
from relaybox.idempotency import IdempotencyService, Sweeper, SweepResult, sweep
from relaybox.local import LocalPostgres
from relaybox.settings import IdempotencySettings, PostgresSettings
from structlog.testing import capture_logs

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.outages import stopped
from tests.fixtures.stored_responses import (
    BODY,
    SETTINGS,
    advance_time,
    count_rows,
    find_response,
    store_expired,
    store_response,
    sweep_once,
)
from tests.fixtures.waiting import eventually


@pytest.mark.guarantee("G70")
async def test_only_expired_responses_are_removed(database: Database, superuser: asyncpg.Connection) -> None:
    await store_response(database, "short", ttl_h=1)
    await store_response(database, "short without", None, ttl_h=1)
    assert await sweep_once(database) == SweepResult(claims=0, slots=0, busy=False)
    await store_response(database, "short text", b"text", ttl_h=1)
    await advance_time(superuser, hours=13)
    await superuser.execute("SELECT setval('idempotency_turn', 1)")
    await store_response(database, "long")
    await store_response(database, "long text", b"text")
    await store_response(database, "long without", None)
    assert await sweep_once(database) == SweepResult(claims=3, slots=1, busy=False)
    assert await count_rows(superuser) == (3, 1)
    assert await find_response(database, "long") == {"of": "long", "body": BODY}
    assert await find_response(database, "long text") == {"of": "long text", "body": b"text"}
    assert await find_response(database, "long without") == {"of": "long without"}


class Watched:
    """An executor that records for each statement how many claims it deleted, or which step it took."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self.did: list[int | str | None] = []
        self.at_busy: Callable[[], Awaitable[None]] | None = None

    async def fetch(self, query: str, /, *args: Any) -> Sequence[Mapping[str, Any]]:
        rows = await self._inner.fetch(query, *args)
        self.did += [value for row in rows for value in row.values()]
        if self.at_busy is not None and self.did[-1] == "busy":
            await self.at_busy()
        return rows


@pytest.mark.guarantee("G70")
async def test_claims_are_deleted_in_batches_of_1000(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await store_expired(superuser, 2_500)
    await store_response(database, "live")
    async with database.connection() as connection:
        watched = Watched(connection)
        assert (await sweep(watched, SETTINGS)).claims == 2_500
    assert watched.did == [1_000, 1_000, 500, "closed", None]


@pytest.mark.guarantee("G70")
async def test_sweep_pauses_after_each_step(
    database: Database, superuser: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    sleep = asyncio.sleep

    async def rest(delay_s: float) -> None:
        rests.append(delay_s)
        await sleep(0)

    await store_expired(superuser, 2_500)
    monkeypatch.setattr(asyncio, "sleep", rest)
    await sweep_once(database)
    # Two full batches of claims; a slot that was closed, and emptied.
    assert len(rests) == 4
    assert min(rests) >= 0.02


@pytest.mark.guarantee("G70")
async def test_busy_slot_is_retried_within_the_sweep(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await store_expired(superuser, 10)
    reading = superuser.transaction()
    await reading.start()
    await superuser.fetch("SELECT FROM idempotency_bodies")
    async with database.connection() as connection:
        watched = Watched(connection)
        watched.at_busy = reading.commit
        assert await sweep(watched, SETTINGS) == SweepResult(claims=10, slots=1, busy=False)
    assert watched.did == [10, "closed", "busy", "emptied", None]


@pytest.mark.guarantee("G70")
async def test_busy_slot_ends_the_sweep_after_claims_are_removed(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await store_expired(superuser, 10)
    async with superuser.transaction(), database.connection() as connection:
        await superuser.fetch("SELECT FROM idempotency_bodies")
        watched = Watched(connection)
        assert await sweep(watched, SETTINGS) == SweepResult(claims=10, slots=0, busy=True)
    assert watched.did == [10, "closed", *["busy"] * 20]


@pytest.mark.guarantee("G70")
async def test_sweep_does_not_wait_for_locked_live_rows(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await store_expired(superuser, 10)
    await store_response(database, "live")
    async with superuser.transaction():
        await superuser.fetch("SELECT FROM idempotency_cache WHERE expires_at > now() FOR UPDATE")
        assert (await sweep_once(database)).claims == 10


@pytest.mark.guarantee("G70")
async def test_sweep_does_not_wait_for_a_request_with_an_expired_key(
    database: Database, superuser: asyncpg.Connection
) -> None:
    """A sweep that waits would hold locks on 1,000 rows meanwhile, and delay other requests."""
    for number in range(10):
        await store_response(database, f"k-{number}", ttl_h=1)
    await advance_time(superuser, hours=2)
    async with database.sessions() as session:
        again = IdempotencyService(session, settings=SETTINGS)
        assert await again.cache_idempotency_result("k-5", {"of": "k-5", "body": BODY})
        assert (await sweep_once(database)).claims == 9
        await again.commit()
    assert await find_response(database, "k-5") == {"of": "k-5", "body": BODY}


@pytest.mark.guarantee("G70")
async def test_concurrent_sweeps_count_each_claim_once(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await store_expired(superuser, 3_000)
    await store_response(database, "live")
    sweeps = await asyncio.gather(*(sweep_once(database) for _ in range(8)))
    last = await sweep_once(database)
    assert sum(one.claims for one in sweeps) + last.claims == 3_000
    assert (await count_rows(superuser))[0] == 1
    assert await find_response(database, "live") == {"of": "live", "body": BODY}


@pytest.mark.guarantee("G70")
async def test_only_one_service_sweeps_at_a_time(database: Database, superuser: asyncpg.Connection) -> None:
    await store_expired(superuser, 10)
    for table, turn in (("idempotency_cache", "expire_claims"), ("idempotency_bodies", "retain_bodies")):
        await superuser.execute("SELECT pg_advisory_lock($1::text::regclass::int, hashtext($2))", table, turn)
    assert await sweep_once(database) == SweepResult(claims=0, slots=0, busy=False)
    await superuser.execute("SELECT pg_advisory_unlock_all()")
    assert await sweep_once(database) == SweepResult(claims=10, slots=1, busy=False)


async def test_sweeper_sweeps_and_reports_metrics_until_it_is_stopped(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await store_expired(superuser, 10)
    registry = CollectorRegistry()
    sweeper = Sweeper(database, registry, SETTINGS)
    running = asyncio.create_task(sweeper.run())

    async def gone() -> bool:
        return await count_rows(superuser) == (0, 0)

    await eventually("the first sweep", gone)
    await store_expired(superuser, 10)
    await eventually("another sweep", gone)
    assert registry.get_sample_value("relaybox_idempotency_expiry_lag_seconds") is not None
    sweeper.stop()
    await running
    await store_expired(superuser, 10)
    assert await count_rows(superuser) == (10, 10)


async def test_stopping_sweeper_does_not_wait_for_its_next_run(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await store_expired(superuser, 10)
    sweeper = Sweeper(database, CollectorRegistry(), IdempotencySettings(sweep_s=86_400))
    running = asyncio.create_task(sweeper.run())

    async def gone() -> bool:
        return await count_rows(superuser) == (0, 0)

    await eventually("the first sweep", gone)
    sweeper.stop()
    await asyncio.wait_for(running, WAIT_S)


async def test_sweeper_continues_after_an_outage_of_postgresql(
    database: Database, superuser: asyncpg.Connection, postgres_server: LocalPostgres
) -> None:
    await store_expired(superuser, 10)
    sweeper = Sweeper(database, CollectorRegistry(), SETTINGS)

    async def complaint() -> bool:
        return any(one["event"] == "periodic job failed; trying again" for one in logs)

    async def gone() -> bool:
        async with database.connection() as connection:
            [row] = await connection.fetch("SELECT count(*) AS rows FROM idempotency_cache")
        return row["rows"] == 0

    with capture_logs() as logs:
        async with stopped(postgres_server):
            running = asyncio.create_task(sweeper.run())
            await eventually("a complaint", complaint)
        await eventually("a sweep", gone)
    sweeper.stop()
    await running


async def test_sweeper_waits_for_a_missing_schema(
    empty_postgres_settings: PostgresSettings,
) -> None:
    database, owner = Database(empty_postgres_settings), Database(empty_postgres_settings.as_owner())
    sweeper = Sweeper(database, CollectorRegistry(), SETTINGS)

    async def complaint() -> Any:
        return next((one for one in logs if one["event"] == "periodic job failed; trying again"), None)

    async def gone() -> bool:
        async with owner.connection() as connection:
            [row] = await connection.fetch("SELECT count(*) AS rows FROM idempotency_cache")
        return row["rows"] == 0

    with capture_logs() as logs:
        running = asyncio.create_task(sweeper.run())
        told = await eventually("a complaint", complaint)
    assert told["log_level"] == "error"
    assert "Traceback" in told["traceback"]
    await migrate_up(empty_postgres_settings, BACKBONE)
    async with owner.connection() as connection:
        await connection.fetch(
            "INSERT INTO idempotency_cache (key, result, expires_at) VALUES ('k', '{}', '2001-01-01')"
        )
    await eventually("a sweep", gone)
    sweeper.stop()
    await running
    await database.close()
    await owner.close()
