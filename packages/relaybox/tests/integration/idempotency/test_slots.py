"""Separately stored bodies are removed a slot at a time; a body that has not expired is never lost (G70)."""

import random
from typing import Any

import asyncpg
import pytest
from relaybox.db import Database
from relaybox.idempotency import IdempotencyService, SweepResult

from tests.fixtures.stored_responses import (
    BODY,
    OPEN_SLOT,
    SETTINGS,
    advance_time,
    count_rows,
    find_response,
    store_expired,
    store_response,
    sweep_once,
)


@pytest.mark.guarantee("G70")
async def test_bodies_are_removed_without_dead_rows(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await store_expired(superuser, 1_000)
    assert (await sweep_once(database)).slots == 1
    size = "SELECT sum(pg_relation_size(relid)) FROM pg_partition_tree('idempotency_bodies') WHERE isleaf"
    assert await superuser.fetchval(size) == 0


@pytest.mark.guarantee("G70")
async def test_slot_is_closed_after_half_the_default_ttl(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await advance_time(superuser, hours=100)
    await sweep_once(database)
    assert await superuser.fetchval(OPEN_SLOT) == 0, "it holds nothing"
    await superuser.execute("UPDATE idempotency_slots SET opened_at = now()")
    await store_response(database, "old")
    await advance_time(superuser, hours=11.9)
    await sweep_once(database)
    assert await superuser.fetchval(OPEN_SLOT) == 0
    await advance_time(superuser, hours=0.2)
    await sweep_once(database)
    assert await superuser.fetchval(OPEN_SLOT) != 0
    await store_response(database, "new")
    await advance_time(superuser, hours=12)
    assert await sweep_once(database) == SweepResult(claims=1, slots=1, busy=False)
    assert await count_rows(superuser) == (1, 1)
    assert await find_response(database, "new") == {"of": "new", "body": BODY}


@pytest.mark.guarantee("G70")
async def test_long_ttl_delays_only_its_own_slot(database: Database, superuser: asyncpg.Connection) -> None:
    await store_response(database, "long", ttl_h=1_000)
    # More of them than there are slots: the delayed slot is skipped.
    for number in range(9):
        await store_response(database, f"short-{number}", ttl_h=1)
        await advance_time(superuser, hours=13)
        await sweep_once(database)
    claims, bodies = await count_rows(superuser)
    assert claims == 1
    assert bodies <= 2, "its own and one that was kept beside it"
    assert await find_response(database, "long") == {"of": "long", "body": BODY}
    await advance_time(superuser, hours=1_000)
    await sweep_once(database)
    assert await count_rows(superuser) == (0, 0)


@pytest.mark.guarantee("G70")
async def test_bodies_use_all_slots_in_turn_without_end(
    database: Database, superuser: asyncpg.Connection
) -> None:
    for number in range(9):
        await store_response(database, f"k-{number}", ttl_h=1)
        await advance_time(superuser, hours=13)
        assert await sweep_once(database) == SweepResult(claims=1, slots=1, busy=False)
    assert await count_rows(superuser) == (0, 0)


@pytest.mark.guarantee("G70")
async def test_sweep_does_not_wait_for_a_reader(database: Database, superuser: asyncpg.Connection) -> None:
    await store_expired(superuser, 10)
    async with superuser.transaction():
        await superuser.fetch("SELECT FROM idempotency_bodies")
        assert await sweep_once(database) == SweepResult(claims=10, slots=0, busy=True)
        # No lock is waited for: neither writers nor readers are blocked.
        await store_response(database, "k")
        assert await find_response(database, "k") == {"of": "k", "body": BODY}
    assert await sweep_once(database) == SweepResult(claims=0, slots=1, busy=False)
    assert await count_rows(superuser) == (1, 1)


@pytest.mark.guarantee("G70")
async def test_reader_of_a_short_text_blocks_no_slot(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await store_expired(superuser, 10)
    await store_response(database, "k", b"text")
    async with database.sessions() as session:
        service = IdempotencyService(session, settings=SETTINGS)
        assert await service.claim("k") is not None
        assert await service.claim("another") is None
        assert await sweep_once(database) == SweepResult(claims=10, slots=1, busy=False)


@pytest.mark.guarantee("G70")
async def test_short_ttls_do_not_use_up_the_slots(database: Database, superuser: asyncpg.Connection) -> None:
    """An endpoint with a TTL of six minutes, beside one with a TTL of a day."""
    turns: list[int] = []
    for third in range(3 * 13):
        await store_response(database, f"short-{third}", ttl_h=0.1)
        await store_response(database, f"long-{third}")
        await advance_time(superuser, hours=1 / 3)
        await sweep_once(database)
        turns.append(await superuser.fetchval(OPEN_SLOT))
    assert turns[:35] == [0] * 35
    assert turns[35] != 0
    assert turns[35:] == turns[35:36] * 4


@pytest.mark.guarantee("G70")
@pytest.mark.parametrize(
    ("lives_h", "stands_h_max"),
    [((24,), 36), ((0.1,), 12.1), ((0.1, 24), 36), ((24, 36), 48), ((0.1, 24, 168), 312)],
    ids=["the usual", "short", "short and usual", "half as long again", "a week"],
)
async def test_body_is_stored_for_the_longest_ttl_and_half_the_default(
    database: Database, superuser: asyncpg.Connection, lives_h: tuple[float, ...], stands_h_max: float
) -> None:
    """Slots wait for a TTL over 1.5 times the default: for twice that TTL less the default."""
    step_h, stood_h = 6, 0.0
    for hour in range(0, int(2 * stands_h_max) + 1, step_h):
        for life_h in lives_h:
            body = str(hour).encode().ljust(513)
            await store_response(database, f"{hour} for {life_h}", body, ttl_h=life_h)
        await advance_time(superuser, hours=step_h)
        await sweep_once(database)
        oldest = await superuser.fetch(
            "SELECT convert_from(body, 'UTF8')::int AS hour FROM idempotency_bodies"
        )
        stood_h = max(stood_h, *(hour + step_h - row["hour"] for row in oldest), 0.0)
    # A sweep may be one step late, once for closing and once for emptying.
    assert stood_h <= stands_h_max + 2 * step_h
    assert stood_h >= stands_h_max - 3 * step_h, "the bound is no larger than it must be"


@pytest.mark.guarantee("G70")
async def test_body_written_late_into_a_closed_slot_stays(
    database: Database, superuser: asyncpg.Connection
) -> None:
    """As by a request that has read the number of the open slot and was then delayed."""
    await store_expired(superuser, 10)
    await store_response(database, "late")
    await superuser.execute("SELECT setval('idempotency_turn', 1)")
    assert await sweep_once(database) == SweepResult(claims=10, slots=0, busy=False)
    assert await find_response(database, "late") == {"of": "late", "body": BODY}
    await advance_time(superuser, hours=25)
    await sweep_once(database)
    assert await count_rows(superuser) == (0, 0)


@pytest.mark.guarantee("G70")
@pytest.mark.parametrize(
    "body", [BODY, b"text", b"", None], ids=["one that lies apart", "a text", "an empty one", "none"]
)
async def test_body_of_an_earlier_use_of_a_key_is_not_returned(
    database: Database, superuser: asyncpg.Connection, body: bytes | None
) -> None:
    await store_response(database, "beside it")
    await store_response(database, "k", b"old" * 200, ttl_h=1)
    await advance_time(superuser, hours=2)
    # The next body is written to another slot, and the old slot is not due yet.
    await superuser.execute("SELECT setval('idempotency_turn', 1)")
    assert (await sweep_once(database)).slots == 0
    assert await store_response(database, "k", body)
    assert await find_response(database, "k") == ({"of": "k"} if body is None else {"of": "k", "body": body})


@pytest.mark.guarantee("G70")
async def test_services_role_cannot_empty_or_switch_slots(database: Database) -> None:
    async with database.connection() as connection:
        for forbidden in ("TRUNCATE idempotency_bodies_0", "SELECT setval('idempotency_turn', 1)"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(forbidden)


class Story:
    """Random steps (store, delete, advance the time, sweep), with the expected responses after each one."""

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
            assert await find_response(self._database, key) == (result if until > self._hours else None), key

    async def _keep(self, key: str) -> None:
        # Never at a full hour, so that the seconds that the test takes make no difference.
        ttl_h = self._dice.choice((0.5, 5.5, 11.5, 23.5, 99.5))
        body = self._dice.choice((None, b"", b"text", self._dice.randbytes(20), self._dice.randbytes(600)))
        is_new = key not in self._live or self._live[key][1] <= self._hours
        assert await store_response(self._database, key, body, ttl_h=ttl_h) is is_new
        if is_new:
            result = {"of": key} if body is None else {"of": key, "body": body}
            self._live[key] = result, self._hours + ttl_h

    async def _pass(self, _key: str) -> None:
        hours = self._dice.randint(1, 12)
        await advance_time(self._superuser, hours=hours)
        self._hours += hours

    async def _sweep(self, _key: str) -> None:
        await sweep_once(self._database)

    async def _forget(self, key: str) -> None:
        async with self._database.sessions() as session:
            service = IdempotencyService(session, settings=SETTINGS)
            await service.invalidate_key(key)
            await service.commit()
        self._live.pop(key, None)


@pytest.mark.guarantee("G70")
@pytest.mark.parametrize("seed", range(4))
async def test_every_live_response_is_found_complete_between_sweeps(
    database: Database, superuser: asyncpg.Connection, seed: int
) -> None:
    story = Story(database, superuser, seed)
    for _ in range(80):
        await story.step()
        await story.check()
    await advance_time(superuser, hours=1_000)
    await sweep_once(database)
    assert await count_rows(superuser) == (0, 0)
