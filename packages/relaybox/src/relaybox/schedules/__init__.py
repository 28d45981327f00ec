"""Run tasks on a schedule: each tick of a cron expression creates one task, however many processes run.

A *tick* is a time that matches the expression. Declare a function with :func:`recurring_task`, and run a
:class:`RecurringTaskRunner` in at least one process. The schedules are rows of ``work_schedules``; one of the
runners creates the task of a tick and sets the next tick of the schedule, in one transaction.
"""

from relaybox.schedules._definition import MissedTicks, RecurringFunction, RecurringTask, Tick, recurring_task
from relaybox.schedules._errors import ScheduleError, ScheduleInvalid
from relaybox.schedules._runner import RecurringTaskRunner, recurring_workers
from relaybox.schedules._store import create_due_tasks, declare_schedules

__all__ = (
    "MissedTicks",
    "RecurringFunction",
    "RecurringTask",
    "RecurringTaskRunner",
    "ScheduleError",
    "ScheduleInvalid",
    "Tick",
    "create_due_tasks",
    "declare_schedules",
    "recurring_task",
    "recurring_workers",
)
