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

    LATEST = auto()  # one task, for the latest of the due ticks
    EACH = auto()  # one task for each of the due ticks, in order


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A time at which a schedule was due; the function of the tick's task gets this object."""

    #: Id of the tick's task, the same in each attempt; a key for effects outside the database.
    id: UUID
    #: Name of the schedule.
    name: str
    #: The time of the tick in the zone of the schedule; the task may run later.
    at: datetime
    #: Time of the tick of the schedule's previous task; ticks between the two times were missed. None for the
    #: first task.
    previous_at: datetime | None


#: The function of a recurring task: gets the tick and the session of the transaction that ends the task, and
#: returns the task's result.
RecurringFunction = Callable[[Tick, AsyncSession], Awaitable[Mapping[str, Any] | None]]


@dataclass(frozen=True, kw_only=True)
class RecurringTask:
    """A function with its schedule; see :func:`recurring_task` for the fields."""

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

    The function runs in one READ COMMITTED transaction with the record that its task has ended. So the
    database changes of the function take effect once per tick, even if processes are killed. An error rolls
    the changes back, and the task is tried again, up to ``TASK_ATTEMPTS_MAX`` attempts in total.

    Args:
        name: Name of the schedule, 1 to 120 characters; names with the prefix ``relaybox.`` are reserved.
        cron: Five fields for minute, hour, day of month, month and day of week, as in Debian's crontab. A
            field for the second may precede them.
        timezone: Time zone of the expression, a name of the IANA database.
        missed: What happens if several ticks are due at once.
        may_overlap: Whether a tick creates its task although the previous task of the schedule has not ended.
            Otherwise the tick waits until the previous task has ended.

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
