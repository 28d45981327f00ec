"""Measure the expiry of stored responses under load: duration and WAL of the sweep, and response times."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from _backlog import connected
from _keyed import CONNECTIONS, SQL, fresh, place_order, wal_bytes
from _load import Address, Load, closed_loop, open_loop, percentile
from relaybox.db import Database
from relaybox.idempotency import sweep
from relaybox.local import LocalPostgres
from relaybox.settings import IdempotencySettings, PostgresSettings, load_settings

__all__ = ("expire",)

_PER_S: Final = 200
_LIVE: Final = 20_000
_EXPIRED_SLOT: Final = 0
_LIVE_SLOT: Final = 1
#: Seconds of load before the first statement of the sweep, and after the last.
_CALM_S: Final = 2.0
_PAUSE_S: Final = 0.1
_SECONDS_MAX: Final = 300
#: Seconds after which the sweep stops retrying to truncate a slot that transactions keep reading.
_SWEEP_S_MAX: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Expired:
    """Duration, failed attempts and result of a sweep, and the duration of the VACUUM after it."""

    sweep_s: float
    #: Failed attempts to truncate a slot because a transaction was reading it.
    busy: int
    #: Whether the slot was truncated in the end.
    emptied: bool
    vacuum_s: float


async def expire(postgres: LocalPostgres, address: Address, keys: int) -> dict[str, Any]:
    """Return the figures of a load during a sweep of *keys* responses, and of this load without a sweep."""
    async with connected(postgres) as connection:
        await connection.execute(SQL["make_texts"])
        await closed_loop(address, iter(fresh(place_order(), 2_000)), connections=CONNECTIONS, seconds=10.0)
        with_sweep, wal_with, expired = await _loaded(connection, address, keys, None)
        alone, wal_alone, _ = await _loaded(connection, address, keys, with_sweep.seconds)
    assert expired is not None, "nothing was swept"
    return {
        "expiry_keys": keys,
        "expiry_sweep_s": round(expired.sweep_s, 1),
        "expiry_vacuum_s": round(expired.vacuum_s, 1),
        "expiry_busy": expired.busy,
        "expiry_emptied": expired.emptied,
        "expiry_refused": sum(with_sweep.refused.values()),
        "expiry_wal_mb": round((wal_with - wal_alone) / 1e6, 1),
        "expiry_load_wal_mb": round(wal_alone / 1e6, 1),
        "expiry_held_ms_max": round(max(with_sweep.latencies_s) * 1_000, 1),
        "expiry_held_ms_p99": round(percentile(with_sweep.latencies_s, 99) * 1_000, 1),
        "expiry_held_ms_max_alone": round(max(alone.latencies_s) * 1_000, 1),
        "expiry_held_ms_p99_alone": round(percentile(alone.latencies_s, 99) * 1_000, 1),
    }


async def _loaded(
    connection: Any, address: Address, keys: int, alone_s: float | None
) -> tuple[Load, float, Expired | None]:
    """Run a load for *alone_s* seconds, or, if None, during a sweep; return load, WAL bytes and sweep."""
    await fill(connection, keys)
    before = await wal_bytes(connection)
    done = asyncio.Event()
    requests = _until(done, iter(fresh(place_order(), _PER_S * _SECONDS_MAX)))
    loading = asyncio.create_task(open_loop(address, requests, per_s=_PER_S, total=_PER_S * _SECONDS_MAX))
    expired: Expired | None = None
    if alone_s is None:
        await asyncio.sleep(_CALM_S)
        expired = await _sweep(connection)
        await asyncio.sleep(_CALM_S)
    else:
        await asyncio.sleep(alone_s)
    done.set()
    load = await loading
    return load, await wal_bytes(connection) - before, expired


async def fill(connection: Any, keys: int) -> None:
    """Write *keys* expired responses to one table of bodies (slot), live ones to another, and all to disk."""
    await connection.execute(SQL["empty_answers"])
    await connection.fetch(SQL["make_claims"], keys, "expired-", -1)
    await connection.fetch(SQL["make_bodies"], _EXPIRED_SLOT)
    await connection.fetch(SQL["make_claims"], _LIVE, "live-", 23)
    await connection.fetch(SQL["make_bodies"], _LIVE_SLOT)
    await connection.fetch(SQL["write_to_slot"], _LIVE_SLOT)
    await connection.execute(SQL["vacuum_answers"])
    await connection.execute(SQL["checkpoint"])


async def _sweep(connection: Any) -> Expired:
    """Sweep as services do until the expired slot is truncated, at most 60 s; then vacuum like autovacuum."""
    database = Database(load_settings(PostgresSettings), application_name="bench-sweeper")
    settings, busy, slots, began = load_settings(IdempotencySettings), 0, 0, time.perf_counter()
    async with database.connection() as service:
        while not slots and time.perf_counter() - began < _SWEEP_S_MAX:
            swept = await sweep(service, settings)
            slots, busy = swept.slots, busy + swept.busy
            await asyncio.sleep(_PAUSE_S if swept.busy else 0)
    swept_at = time.perf_counter()
    await connection.execute(SQL["vacuum_claims"])
    vacuumed_at = time.perf_counter()
    await database.close()
    [left] = await connection.fetch(SQL["left_over"])
    assert left["claims"] == 0, f"left over: {dict(left)}"
    return Expired(
        sweep_s=swept_at - began, busy=busy, emptied=left["bodies"] == 0, vacuum_s=vacuumed_at - swept_at
    )


def _until(done: asyncio.Event, requests: Iterator[bytes]) -> Iterator[bytes]:
    for request in requests:
        if done.is_set():
            return
        yield request
