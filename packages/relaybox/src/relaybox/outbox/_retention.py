"""Remove old SENT rows from the outbox by truncating one of its four partitions (slots) at a time (G29)."""

from enum import StrEnum
from typing import Final

from relaybox.db import Executor, load_queries

__all__ = ("RetentionStep", "retain")

_SQL: Final = load_queries(__package__ or "relaybox.outbox", "outbox.sql")
#: Steps of one call, enough for all slots; the next call continues.
_STEPS_MAX: Final = 16


class RetentionStep(StrEnum):
    """A step of retention on one of the four slots (partitions) of the outbox.

    New rows are inserted into the open slot; see docs/how-to/retention.md.
    """

    #: New rows are inserted into the next slot.
    CLOSED = "closed"
    #: At most 1,000 PENDING and 1,000 FAILED rows were moved to the open slot; there may be more.
    MOVED = "moved"
    #: The slot contains only SENT rows; their retention time has begun.
    SEALED = "sealed"
    #: The SENT rows of the slot were older than the retention time and were removed.
    EMPTIED = "emptied"
    #: Another transaction or an old snapshot uses the slot, so the step was not executed.
    BUSY = "busy"


async def retain(db: Executor, *, keep_h: float) -> list[RetentionStep]:
    """Execute the retention steps that are due, at most 16; the next call continues.

    If this function is called regularly, a SENT row is removed *keep_h* to 1.5 * *keep_h* hours after it was
    published; later while a transaction uses its slot, or while 1,000 or more rows of its slot are PENDING.
    PENDING and FAILED rows stay, whatever their age. A call returns if another process is executing a step. A
    step waits at most 0.1 s for a lock, and moves at most 2,000 rows.

    Args:
        db: A connection outside a transaction.
        keep_h: Retention time in hours; 0 removes all SENT rows.

    Returns:
        The executed steps; empty if none was due.

    Raises:
        DatabaseUnavailable: PostgreSQL is unreachable.
        DatabaseBusy: The server cancelled a statement because of its limits.
    """
    steps: list[RetentionStep] = []
    while len(steps) < _STEPS_MAX:
        [row] = await db.fetch(_SQL["retain"], keep_h * 3_600)
        if row["step"] is None:
            break
        steps.append(RetentionStep(row["step"]))
        if steps[-1] is RetentionStep.BUSY:
            break
    return steps
