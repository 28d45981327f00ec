"""Errors of recurring tasks.

::

    RelayboxError
    └── ScheduleError
        └── ScheduleInvalid   a name, cron expression or time zone cannot be used
"""

from relaybox.errors import RelayboxError

__all__ = ("ScheduleError", "ScheduleInvalid")


class ScheduleError(RelayboxError):
    """Base of the errors of this package."""

    error_code = "SCHEDULE_ERROR"


class ScheduleInvalid(ScheduleError):
    """Raised when a recurring task is declared with an unusable name, cron expression or time zone."""

    error_code = "SCHEDULE_INVALID"
