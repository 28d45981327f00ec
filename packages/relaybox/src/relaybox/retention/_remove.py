"""Old rows are removed in small transactions, the oldest first; open commands and tasks never are."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relaybox.db import Executor, load_queries
from relaybox.settings import RetentionSettings

__all__ = ("RemovalCounts", "remove_old_records")

_SQL: Final = load_queries(__package__ or "relaybox.retention", "retention.sql")
#: Rows of one statement; a row that another transaction holds is left for later.
_ROWS_MAX: Final = 1_000
#: Statements of one table in one call, so that a call ends on a database of any age.
_BATCHES_MAX: Final = 10_000
_REST_S_MIN: Final = 0.02
_RESTS_PER_STEP: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class RemovalCounts:
    """How many rows a call has removed, or changed."""

    #: Commands that have ended, from ``command_inbox``.
    commands: int
    #: Tasks that have ended, from ``async_tasks``.
    tasks: int
    #: Rows of ``consumed_events``.
    consumed_events: int
    #: Commands that lost their client's idempotency key, and stay.
    keys: int


async def remove_old_records(
    db: Executor,
    settings: RetentionSettings,
    *,
    key_ttl_h: float,
    should_continue: Callable[[], bool] = lambda: True,
) -> RemovalCounts:
    """Remove the rows that are older than *settings* say, and client keys that are older than *key_ttl_h*.

    Any number of processes may call it at any time: one acts on a table, the others leave it out. *db* must
    not be in a transaction: each step is one, of 1,000 rows at the most, waits for no row lock, and is
    followed by a pause of three times its duration. A retention of 0 hours keeps rows for ever.

    Args:
        db: a connection outside a transaction.
        settings: how long each kind of row is kept.
        key_ttl_h: hours for which a client's idempotency key is stored in clear.
        should_continue: asked before each step; false ends the call.

    Raises:
        DatabaseUnavailable: PostgreSQL is away.
        DatabaseBusy: the server cancelled a statement for its own limits.
    """
    return RemovalCounts(
        keys=await _in_batches(db, "clear_idempotency_keys", should_continue, key_ttl_h),
        commands=await _in_batches(db, "remove_commands", should_continue, settings.commands_h),
        tasks=await _in_batches(db, "remove_tasks", should_continue, settings.tasks_h),
        consumed_events=await _in_batches(
            db, "remove_consumed_events", should_continue, settings.consumed_events_h
        ),
    )


async def _in_batches(db: Executor, query: str, should_continue: Callable[[], bool], age_h: float) -> int:
    total = 0
    for _ in range(_BATCHES_MAX if age_h else 0):
        if not should_continue():
            break
        began_s = time.monotonic()
        [row] = await db.fetch(_SQL[query], age_h, _ROWS_MAX)
        total += row["removed"]
        if row["removed"] < _ROWS_MAX:
            break
        await asyncio.sleep(max(_REST_S_MIN, _RESTS_PER_STEP * (time.monotonic() - began_s)))
    return total
