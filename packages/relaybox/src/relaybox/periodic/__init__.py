"""Repeat background work: in each process, or in one process of the installation at a time.

A :class:`PeriodicJob` belongs to its process, such as a measurement. A :class:`SharedJob` belongs to the
whole installation, such as the removal of old rows: one process runs it each time, and
``relaybox schedule list`` shows when and how the last run ended.
"""

from relaybox.periodic._job import PeriodicJob, wait_at_most
from relaybox.periodic._metrics import ScheduleMetrics
from relaybox.periodic._shared import SharedJob, run_if_due

__all__ = ("PeriodicJob", "ScheduleMetrics", "SharedJob", "run_if_due", "wait_at_most")
