"""What a runner has done, for operators and tests alike."""

from dataclasses import dataclass

__all__ = ("RunnerStatistics",)


@dataclass(frozen=True, kw_only=True)
class RunnerStatistics:
    """Figures of one :class:`~relaybox.tasks.TaskRunner` since its start."""

    #: Tasks held now.
    running: int
    #: Tasks whose worker ended them: completed or failed.
    ended: int
    #: Tasks that were cancelled or taken over while held.
    lost: int
    #: Attempts that failed and are made again after a pause.
    postponed: int
    #: Tasks handed on when the runner stopped.
    released: int
