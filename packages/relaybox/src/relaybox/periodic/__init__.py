"""Repeat background work: in each process, or in one process of the installation at a time.

Each process runs its own :class:`PeriodicJob`, such as a measurement. A :class:`SharedJob`, such as the
removal of old rows, belongs to the whole installation: each run is executed by one process, and
``relaybox schedule list`` shows when and how the last run ended.
"""

from relaybox.periodic._job import PeriodicJob, wait_at_most
from relaybox.periodic._metrics import ScheduleMetrics
from relaybox.periodic._shared import SharedJob, run_if_due

__all__ = ("PeriodicJob", "ScheduleMetrics", "SharedJob", "run_if_due", "wait_at_most")
