"""Expired answers leave, claims in batches and bodies a slot at a time; a live one is never lost (G70)."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from relaybox.db import Database, Executor
from relaybox.idempotency import IdempotencyService, Sweeper, Swept, sweep
from relaybox.local import LocalPostgres
from relaybox.settings import IdempotencySettings
from structlog.testing import capture_logs

from tests.fixtures.outages import away
from tests.fixtures.waiting import eventually

SETTINGS = IdempotencySettings(sweep_s=0.02)
HOUR_S = 3_600
OPEN_SLOT = "SELECT coalesce(pg_sequence_last_value('idempotency_turn'), 0)"
#: As many claims that expired an hour ago, with a body each.
EXPIRED = """
    WITH claim AS (
        INSERT INTO idempotency_cache (key, result, expires_at)
        SELECT 'expired-' || n, '{}', now() - interval '1 h' FROM generate_series(1, $1) AS n
        RETURNING key, expires_at)
    INSERT INTO idempotency_bodies (key, body, expires_at) SELECT key, 'body', expires_at FROM claim
"""


async def keep(database: Database, key: str, body: bytes | None = b"body", *, ttl_h: float = 24) -> bool:
    """Keep an answer as a request does."""
    async with database.sessions() as session:
        service = IdempotencyService(session, settings=SETTINGS)
        result = {"of": key} if body is None else {"of": key, "body": body}
        kept = await service.cache_idempotency_result(key, result, ttl_h * HOUR_S)
        await service.commit()
        return kept


async def found(database: Database, key: str) -> dict[str, Any] | None:
    async with database.sessions() as session:
        return await IdempotencyService(session, settings=SETTINGS).check_idempotency_key(key)


async def swept(database: Database) -> Swept:
    async with database.connection() as connection:
        return await sweep(connection, SETTINGS)


async def later(superuser: asyncpg.Connection, *, hours: float) -> None:
    """Let so much time go by, for all that is kept."""
    for table in ("idempotency_cache", "idempotency_bodies"):
        await superuser.execute(f"UPDATE {table} SET expires_at = expires_at - $1 * interval '1 h'", hours)


async def standing(superuser: asyncpg.Connection) -> tuple[int, int]:
    """How many claims and bodies there are, expired ones too."""
    return (
        await superuser.fetchval("SELECT count(*) FROM idempotency_cache"),
        await superuser.fetchval("SELECT count(*) FROM idempotency_bodies"),
    )


async def test_g70_rule_13_what_has_expired_leaves_and_nothing_else(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await keep(database, "short", ttl_h=1)
    await keep(database, "short without", None, ttl_h=1)
    assert await swept(database) == Swept(claims=0, slots=0, busy=False)
    await later(superuser, hours=2)
    await keep(database, "long")
    await keep(database, "long without", None)
    assert await swept(database) == Swept(claims=2, slots=1, busy=False)
    assert await standing(superuser) == (2, 1)
    assert await found(database, "long") == {"of": "long", "body": b"body"}
    assert await found(database, "long without") == {"of": "long without"}


class Counted:
    """An executor that remembers how many claims each statement removed."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self.removed: list[int] = []

    async def fetch(self, query: str, /, *args: Any) -> Sequence[Mapping[str, Any]]:
        rows = await self._inner.fetch(query, *args)
        self.removed += [row["removed"] for row in rows if "removed" in row]
        return rows


async def test_g70_rule_13_claims_leave_a_thousand_at_a_time(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(EXPIRED, 2_500)
    await keep(database, "live")
    async with database.connection() as connection:
        counted = Counted(connection)
        assert (await sweep(counted, SETTINGS)).claims == 2_500
    assert counted.removed == [1_000, 1_000, 500]


async def test_g70_rule_13_no_live_row_is_waited_for(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(EXPIRED, 10)
    await keep(database, "live")
    async with superuser.transaction():
        await superuser.fetch("SELECT FROM idempotency_cache WHERE expires_at > now() FOR UPDATE")
        assert (await swept(database)).claims == 10


async def test_g70_rule_13_no_request_is_waited_for_that_uses_an_expired_key_again(
    database: Database, superuser: asyncpg.Connection
) -> None:
    """Whoever waits holds 1,000 rows meanwhile, and with them other requests."""
    for number in range(10):
        await keep(database, f"k-{number}", ttl_h=1)
    await later(superuser, hours=2)
    async with database.sessions() as session:
        again = IdempotencyService(session, settings=SETTINGS)
        assert await again.cache_idempotency_result("k-5", {"of": "k-5", "body": b"new"})
        assert (await swept(database)).claims == 9
        await again.commit()
    assert await found(database, "k-5") == {"of": "k-5", "body": b"new"}


async def test_g70_bodies_leave_without_a_dead_row(database: Database, superuser: asyncpg.Connection) -> None:
    await superuser.execute(EXPIRED, 1_000)
    assert (await swept(database)).slots == 1
    size = "SELECT sum(pg_relation_size(relid)) FROM pg_partition_tree('idempotency_bodies') WHERE isleaf"
    assert await superuser.fetchval(size) == 0


async def test_g70_a_slot_closes_when_half_a_life_of_its_oldest_body_is_over(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await keep(database, "old")
    await later(superuser, hours=11.9)
    await swept(database)
    assert await superuser.fetchval(OPEN_SLOT) == 0
    await later(superuser, hours=0.2)
    await swept(database)
    assert await superuser.fetchval(OPEN_SLOT) == 1
    await keep(database, "new")
    await later(superuser, hours=12)
    assert await swept(database) == Swept(claims=1, slots=1, busy=False)
    assert await standing(superuser) == (1, 1)
    assert await found(database, "new") == {"of": "new", "body": b"body"}


async def test_g70_a_long_life_holds_back_its_own_slot_only(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await keep(database, "long", ttl_h=1_000)
    # More of them than there are slots: the turn passes over the one that is held back.
    for number in range(9):
        await keep(database, f"short-{number}", ttl_h=1)
        await later(superuser, hours=2)
        await swept(database)
    claims, bodies = await standing(superuser)
    assert claims == 1
    assert bodies <= 2, "its own and one that was kept beside it"
    assert await found(database, "long") == {"of": "long", "body": b"body"}
    await later(superuser, hours=1_000)
    await swept(database)
    assert await standing(superuser) == (0, 0)


async def test_g70_bodies_go_round_all_slots_for_ever(
    database: Database, superuser: asyncpg.Connection
) -> None:
    for number in range(9):
        await keep(database, f"k-{number}", ttl_h=1)
        await later(superuser, hours=2)
        assert await swept(database) == Swept(claims=1, slots=1, busy=False)
    assert await standing(superuser) == (0, 0)


async def test_g70_rule_13_nobody_waits_for_a_reader(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(EXPIRED, 10)
    async with superuser.transaction():
        await superuser.fetch("SELECT FROM idempotency_bodies")
        assert await swept(database) == Swept(claims=10, slots=0, busy=True)
        # Behind nothing: neither writers nor readers.
        await keep(database, "k")
        assert await found(database, "k") == {"of": "k", "body": b"body"}
    assert await swept(database) == Swept(claims=0, slots=1, busy=False)
    assert await standing(superuser) == (1, 1)


async def test_g70_a_body_that_comes_late_into_a_closed_slot_stays(
    database: Database, superuser: asyncpg.Connection
) -> None:
    """As by a request that has read the open slot's number and was then held up."""
    await superuser.execute(EXPIRED, 10)
    await keep(database, "late")
    await superuser.execute("SELECT setval('idempotency_turn', 1)")
    assert await swept(database) == Swept(claims=10, slots=0, busy=False)
    assert await found(database, "late") == {"of": "late", "body": b"body"}
    await later(superuser, hours=25)
    await swept(database)
    assert await standing(superuser) == (0, 0)


@pytest.mark.parametrize("body", [b"new", b"", None], ids=["a body", "an empty one", "none"])
async def test_g70_a_body_of_an_earlier_use_is_not_given_for_the_new_one(
    database: Database, superuser: asyncpg.Connection, body: bytes | None
) -> None:
    await keep(database, "beside it")
    await keep(database, "k", b"old", ttl_h=1)
    await later(superuser, hours=2)
    # The next body goes to another slot, and the old one is not due yet.
    await superuser.execute("SELECT setval('idempotency_turn', 1)")
    assert (await swept(database)).slots == 0
    assert await keep(database, "k", body)
    assert await found(database, "k") == ({"of": "k"} if body is None else {"of": "k", "body": body})


async def test_g70_several_sweep_at_once_and_each_claim_is_counted_once(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(EXPIRED, 3_000)
    await keep(database, "live")
    sweeps = await asyncio.gather(*(swept(database) for _ in range(8)))
    last = await swept(database)
    assert sum(one.claims for one in sweeps) + last.claims == 3_000
    assert (await standing(superuser))[0] == 1
    assert await found(database, "live") == {"of": "live", "body": b"body"}


async def test_g70_one_of_several_acts(database: Database, superuser: asyncpg.Connection) -> None:
    await superuser.execute(EXPIRED, 10)
    for turn in ("expire_claims", "retain_bodies"):
        await superuser.execute("SELECT pg_advisory_lock(hashtext('relaybox'), hashtext($1))", turn)
    assert await swept(database) == Swept(claims=0, slots=0, busy=False)
    await superuser.execute("SELECT pg_advisory_unlock_all()")
    assert await swept(database) == Swept(claims=10, slots=1, busy=False)


async def test_g70_the_services_role_cannot_empty_a_slot_by_itself(database: Database) -> None:
    async with database.connection() as connection:
        for forbidden in ("TRUNCATE idempotency_bodies_0", "SELECT setval('idempotency_turn', 1)"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(forbidden)


class Story:
    """Keeps, forgets, lets time go by and sweeps at random, and knows what must be found after each step."""

    KEYS = tuple(f"k-{number}" for number in range(8))

    def __init__(self, database: Database, superuser: asyncpg.Connection, seed: int) -> None:
        self._database = database
        self._superuser = superuser
        self._dice = random.Random(seed)
        self._hours = 0.0
        #: Key to its result, and the hour at which it expires.
        self._live: dict[str, tuple[dict[str, Any], float]] = {}

    async def step(self) -> None:
        act = self._dice.choice((self._keep, self._keep, self._keep, self._pass, self._sweep, self._forget))
        await act(self._dice.choice(self.KEYS))

    async def check(self) -> None:
        for key in self.KEYS:
            result, until = self._live.get(key, (None, 0.0))
            assert await found(self._database, key) == (result if until > self._hours else None), key

    async def _keep(self, key: str) -> None:
        # Never at a full hour, so that the seconds that the test itself takes make no difference.
        ttl_h = self._dice.choice((0.5, 5.5, 11.5, 23.5, 99.5))
        body = self._dice.choice((None, b"", self._dice.randbytes(20)))
        is_new = key not in self._live or self._live[key][1] <= self._hours
        assert await keep(self._database, key, body, ttl_h=ttl_h) is is_new
        if is_new:
            result = {"of": key} if body is None else {"of": key, "body": body}
            self._live[key] = result, self._hours + ttl_h

    async def _pass(self, _key: str) -> None:
        hours = self._dice.randint(1, 12)
        await later(self._superuser, hours=hours)
        self._hours += hours

    async def _sweep(self, _key: str) -> None:
        await swept(self._database)

    async def _forget(self, key: str) -> None:
        async with self._database.sessions() as session:
            service = IdempotencyService(session, settings=SETTINGS)
            await service.invalidate_key(key)
            await service.commit()
        self._live.pop(key, None)


@pytest.mark.parametrize("seed", range(4))
async def test_g70_whatever_is_kept_passes_and_is_swept_every_live_answer_is_found_whole(
    database: Database, superuser: asyncpg.Connection, seed: int
) -> None:
    story = Story(database, superuser, seed)
    for _ in range(80):
        await story.step()
        await story.check()
    await later(superuser, hours=1_000)
    await swept(database)
    assert await standing(superuser) == (0, 0)


async def test_the_sweeper_sweeps_and_says_what_stands_until_it_is_stopped(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(EXPIRED, 10)
    registry = CollectorRegistry()
    sweeper = Sweeper(database, registry, SETTINGS)
    running = asyncio.create_task(sweeper.run())

    async def gone() -> bool:
        return await standing(superuser) == (0, 0)

    await eventually("the first sweep", gone)
    await superuser.execute(EXPIRED, 10)
    await eventually("another sweep", gone)
    assert registry.get_sample_value("relaybox_idempotency_expiry_lag_seconds") is not None
    sweeper.stop()
    await running
    await superuser.execute(EXPIRED, 10)
    assert await standing(superuser) == (10, 10)


async def test_a_stopped_sweeper_does_not_wait_for_its_next_turn(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(EXPIRED, 10)
    sweeper = Sweeper(database, CollectorRegistry(), IdempotencySettings(sweep_s=86_400))
    running = asyncio.create_task(sweeper.run())

    async def gone() -> bool:
        return await standing(superuser) == (0, 0)

    await eventually("the first sweep", gone)
    sweeper.stop()
    await asyncio.wait_for(running, 30)


async def test_the_sweeper_outlives_postgresql(
    database: Database, superuser: asyncpg.Connection, postgres_server: LocalPostgres
) -> None:
    await superuser.execute(EXPIRED, 10)
    sweeper = Sweeper(database, CollectorRegistry(), SETTINGS)

    async def complaint() -> bool:
        return any(one["event"] == "expired answers stay for now" for one in logs)

    async def gone() -> bool:
        async with database.connection() as connection:
            [row] = await connection.fetch("SELECT count(*) AS rows FROM idempotency_cache")
        return row["rows"] == 0

    with capture_logs() as logs:
        async with away(postgres_server):
            running = asyncio.create_task(sweeper.run())
            await eventually("a complaint", complaint)
        await eventually("a sweep", gone)
    sweeper.stop()
    await running
