"""Define the statistics of a task runner, for operators and tests."""

from dataclasses import dataclass

__all__ = ("RunnerStatistics",)


@dataclass(frozen=True, kw_only=True)
class RunnerStatistics:
    """Numbers of tasks of one :class:`~relaybox.tasks.TaskRunner` since its start."""

    #: Tasks held now.
    running: int
    #: Tasks that their worker completed or failed.
    ended: int
    #: Tasks that were cancelled or taken over while held.
    lost: int
    #: Failed attempts that are retried after a pause.
    postponed: int
    #: Tasks released when the runner stopped.
    released: int
