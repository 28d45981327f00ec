"""Remove old SENT rows from the outbox, a whole slot at a time (G29)."""

from enum import StrEnum
from typing import Final

from relaybox.db import Executor, load_queries

__all__ = ("RetentionStep", "retain")

_SQL: Final = load_queries(__package__ or "relaybox.outbox", "outbox.sql")
#: More than one round of all slots; the next call does the rest.
_STEPS_MAX: Final = 16


class RetentionStep(StrEnum):
    """A step of retention, done to one slot of the outbox; see the page about retention."""

    #: New rows are inserted into the next slot.
    CLOSED = "closed"
    #: At most 1,000 PENDING and 1,000 FAILED rows were moved to the open slot; there may be more.
    MOVED = "moved"
    #: The slot contains only SENT rows; their retention time has begun.
    SEALED = "sealed"
    #: The SENT rows of the slot were old enough and were removed.
    EMPTIED = "emptied"
    #: Another transaction, or an old snapshot, uses the slot; nothing was done.
    BUSY = "busy"


async def retain(db: Executor, *, keep_h: float) -> list[RetentionStep]:
    """Do the steps that are due, so that SENT rows are removed after *keep_h* to 1.5 * *keep_h* hours.

    PENDING and FAILED rows stay, whatever their age. Any number of processes may call it: one acts, the
    others return at once. It waits at most 0.1 s for a lock, and holds one only while it moves 2,000 rows.
    *db* must not be in a transaction. 0 hours removes all SENT rows.

    Returns:
        The steps done, which may be none.

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
