"""Declare recurring tasks."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, auto
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.schedules._cron import Cron
from relaybox.schedules._errors import ScheduleInvalid

__all__ = ("MissedTicks", "RecurringFunction", "RecurringTask", "Tick", "recurring_task")

_NAME_CHARACTERS_MAX: Final = 120
_RESERVED: Final = "relaybox."


class MissedTicks(StrEnum):
    """What happens if several ticks are due at once, because no runner ran or a task took long."""

    LATEST = auto()  # one task, for the latest of them
    EACH = auto()  # one task for each of them, in order


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A time at which a schedule was due, given to the function of its task."""

    #: Id of the tick's task, the same in each attempt; a key for effects outside the database.
    id: UUID
    #: Name of the schedule.
    name: str
    #: The time of the tick in the zone of the schedule; the task may run later.
    at: datetime
    #: The tick of the previous task; ticks between the two were missed. None for the first task.
    previous_at: datetime | None


#: The function of a recurring task: gets the tick and the session of the transaction that ends the task, and
#: returns the task's result.
RecurringFunction = Callable[[Tick, AsyncSession], Awaitable[Mapping[str, Any] | None]]


@dataclass(frozen=True, kw_only=True)
class RecurringTask:
    """A function with its schedule."""

    #: Name of the schedule, and type of its tasks.
    name: str
    cron: str
    timezone: str
    missed: MissedTicks
    may_overlap: bool
    function: RecurringFunction

    def next_tick(self, after: datetime) -> datetime:
        """Return the first tick after *after*, in the zone of the schedule."""
        return Cron(expression=self.cron, timezone=self.timezone).next_tick(after)


def recurring_task(
    name: str,
    *,
    cron: str,
    timezone: str = "UTC",
    missed: MissedTicks = MissedTicks.LATEST,
    may_overlap: bool = False,
) -> Callable[[RecurringFunction], RecurringTask]:
    """Declare the decorated function as the task of a schedule.

    The function runs in one READ COMMITTED transaction with the record that its task has ended: its database
    changes take effect once per tick, even if processes are killed. An error rolls them back, and the task is
    tried again as other tasks are.

    Args:
        name: Name of the schedule, 1 to 120 characters; names with the prefix ``relaybox.`` are reserved.
        cron: Minute, hour, day of month, month, day of week, as in Debian's crontab; before them optionally
            the second.
        timezone: Time zone of the expression, a name of the IANA database.
        missed: What happens if several ticks are due at once.
        may_overlap: Whether a tick creates its task although the one before has not ended. Otherwise the tick
            waits until the former task has ended.

    Raises:
        ScheduleInvalid: The name, the expression or the zone is malformed, or the expression has no tick.
    """
    if not 1 <= len(name) <= _NAME_CHARACTERS_MAX or name.startswith(_RESERVED) or not name.isprintable():
        raise ScheduleInvalid(
            f"a schedule needs a name of 1 to {_NAME_CHARACTERS_MAX} printable characters that does not "
            f"begin with {_RESERVED!r}, not {name[:40]!r}"
        )
    checked = Cron(expression=cron, timezone=timezone)

    def declare(function: RecurringFunction) -> RecurringTask:
        return RecurringTask(
            name=name,
            cron=checked.expression,
            timezone=checked.timezone,
            missed=missed,
            may_overlap=may_overlap,
            function=function,
        )

    return declare
