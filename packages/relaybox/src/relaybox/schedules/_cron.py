"""Find the ticks of a cron expression: the times that match it in a time zone; pure functions."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from relaybox.schedules._errors import ScheduleInvalid

__all__ = ("Cron",)

#: The shortest time between two ticks: a tick is a whole second.
_RESOLUTION: Final = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class Cron:
    """A cron expression and the name of its time zone.

    Raises:
        ScheduleInvalid: The expression or the zone is malformed, or the expression has no tick.
    """

    expression: str
    timezone: str

    def __post_init__(self) -> None:
        self.next_tick(datetime.now(UTC))

    @property
    def zone(self) -> tzinfo:
        """The time zone named ``timezone``."""
        return _zone(self.timezone)

    def next_tick(self, after: datetime) -> datetime:
        """Return the first tick after *after*, in the zone of the expression.

        A tick at a local time that is skipped, because the clock is set forward, is due at the next time that
        exists. A tick at a local time that occurs twice, because the clock is set back, is due at the first
        occurrence. These are the rules of Debian's cron. They do not apply to an expression with seconds, or
        with ``*`` or ``*/n`` as minutes or hours: a skipped time then has no tick, a repeated time two.

        Raises:
            ScheduleInvalid: The expression or the zone is malformed, or the expression matches no time in the
                next 50 years.
        """
        try:
            for tick in CronSim(self.expression, after.astimezone(self.zone)):
                # In an hour that is repeated, cronsim begins with ticks of the first occurrence: skip these.
                if tick.astimezone(UTC) > after.astimezone(UTC):
                    return tick
        except CronSimError as error:
            raise ScheduleInvalid(
                f"cron expression {self.expression!r}: {error}; use five fields for minute, hour, day of "
                "month, month and day of week, such as '*/5 * * * *' or '0 6 * * MON-FRI', and before them "
                "optionally one for seconds"
            ) from error
        raise ScheduleInvalid(f"cron expression {self.expression!r} matches no time in the next 50 years")

    def last_tick(self, first: datetime, now: datetime) -> datetime:
        """Return the latest tick up to *now*, in UTC; *first* is a tick, and is returned if no other follows.

        The method is a binary search over the seconds: 25 steps for a year, however many ticks the year has.
        """
        last, end = first.astimezone(UTC), now.astimezone(UTC)  # invariant: no tick after `end`, up to `now`
        while end - last >= _RESOLUTION:
            middle = last + (end - last) / 2
            tick = self.next_tick(middle).astimezone(UTC)
            if tick <= now:
                last = tick
            else:
                end = middle
        return last


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # needs no database of time zones
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise ScheduleInvalid(
            f"time zone {name!r} is unknown; use a name of the IANA database such as 'Europe/Berlin', and "
            "install the package tzdata if this system has no such database"
        ) from error
