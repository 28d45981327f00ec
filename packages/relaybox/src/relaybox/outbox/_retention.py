"""Old SENT rows leave the outbox, a whole slot at a time (G29)."""

from enum import StrEnum
from typing import Final

from relaybox.db import Executor, load_queries

__all__ = ("RetentionStep", "retain")

_SQL: Final = load_queries(__package__ or "relaybox.outbox", "outbox.sql")
#: More than one round of all slots; what is left over is done the next time.
_STEPS_MAX: Final = 16


class RetentionStep(StrEnum):
    """What was done to a slot of the outbox; see the page about retention."""

    #: New rows go to the next slot.
    CLOSED = "closed"
    #: At most 1,000 PENDING and 1,000 FAILED rows went to the open slot; there may be more.
    MOVED = "moved"
    #: The slot holds nothing but SENT rows; their time has begun.
    SEALED = "sealed"
    #: Its SENT rows were old enough and are gone.
    EMPTIED = "emptied"
    #: Somebody's transaction, or old snapshot, is in the way; nothing was done.
    BUSY = "busy"


async def retain(db: Executor, *, keep_h: float) -> list[RetentionStep]:
    """Do what is due so that SENT rows leave after *keep_h* hours, at the latest after half as long again.

    PENDING and FAILED rows stay, whatever their age. Any number of processes may call it at any
    time: one acts, the others return at once. No lock is waited for longer than 0.1 s or held for
    longer than it takes to move 2,000 rows. *db* must not be in a transaction.

    Returns the steps taken, which may be none. 0 hours removes all SENT rows.

    Raises:
        DatabaseUnavailable: PostgreSQL is away.
        DatabaseBusy: the server cancelled a statement for its own limits.
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
