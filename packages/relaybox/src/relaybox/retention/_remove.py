"""Remove old rows in small transactions, oldest first; open commands, tasks and letters stay."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relaybox.db import Executor, load_queries
from relaybox.settings import RetentionSettings

__all__ = ("RemovalCounts", "remove_old_records")

_SQL: Final = load_queries(__package__ or "relaybox.retention", "retention.sql")
#: Rows per statement; a row that another transaction has locked is skipped.
_ROWS_MAX: Final = 1_000
#: Bound of the statements per table and call; the next call continues.
_BATCHES_MAX: Final = 10_000
_PAUSE_S_MIN: Final = 0.02
_PAUSES_PER_STEP: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class RemovalCounts:
    """Numbers of rows that a call of :func:`remove_old_records` removed or changed."""

    #: Rows removed from ``command_inbox``.
    commands: int
    #: Rows removed from ``async_tasks``.
    tasks: int
    #: Rows removed from ``consumed_events``.
    consumed_events: int
    #: Rows removed from ``dead_letters``.
    dead_letters: int
    #: Rows removed from ``flow_resume_handles``.
    flow_handles: int = 0
    #: Rows removed from ``flow_events``.
    flow_events: int = 0
    #: Rows removed from ``flow_event_keys``.
    flow_event_keys: int = 0
    #: Rows of ``command_inbox`` from which the client's idempotency key was removed.
    keys: int


async def remove_old_records(
    db: Executor,
    settings: RetentionSettings,
    *,
    key_ttl_h: float,
    should_continue: Callable[[], bool] = lambda: True,
) -> RemovalCounts:
    """Remove rows older than the retention times of *settings*, and client keys older than *key_ttl_h*.

    Several processes may call this function at once: one of them works on a table, the others skip that
    table. Each step is one transaction, which removes at most 1,000 rows and skips locked rows. After a step
    the function pauses for three times the duration of the step. A time of 0 hours keeps the rows for ever.

    Args:
        db: A connection outside a transaction.
        settings: Hours for which each kind of row is kept.
        key_ttl_h: Hours for which ``command_inbox`` keeps a client's idempotency key, stored unhashed.
        should_continue: Called before each step; when it returns False, no further step begins.

    Raises:
        DatabaseUnavailable: PostgreSQL cannot be reached.
        DatabaseBusy: The server cancelled a statement because of a limit.
    """
    return RemovalCounts(
        keys=await _in_batches(db, "clear_idempotency_keys", should_continue, key_ttl_h),
        commands=await _in_batches(db, "remove_commands", should_continue, settings.commands_h),
        tasks=await _in_batches(db, "remove_tasks", should_continue, settings.tasks_h),
        consumed_events=await _in_batches(
            db, "remove_consumed_events", should_continue, settings.consumed_events_h
        ),
        dead_letters=await _in_batches(db, "remove_dead_letters", should_continue, settings.dead_letters_h),
        flow_handles=await _in_batches(db, "remove_flow_handles", should_continue, settings.flows_h),
        flow_events=await _in_batches(db, "remove_flow_events", should_continue, settings.flows_h),
        flow_event_keys=await _in_batches(db, "remove_flow_event_keys", should_continue, settings.flows_h),
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
        await asyncio.sleep(max(_PAUSE_S_MIN, _PAUSES_PER_STEP * (time.monotonic() - began_s)))
    return total
