"""Refuse a step that would run beside another step, or after the run of a flow's function has ended."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from relaybox.flows._errors import FlowInvalid
from relaybox.tasks import TaskLost

__all__ = ("StepGuard", "Suspended")


class Suspended(BaseException):
    """Raised to end a flow's function when the flow waits; ``except Exception`` does not catch this class."""


class StepGuard:
    """Decide whether a flow's function may call a step in the present run (one call of the function).

    A run ends when a step raises, when the flow is suspended, and when the runner cancels the run. A step
    that the function calls afterwards, in ``except`` or ``finally``, is refused: this step would be recorded
    at the position at which the next run calls another step.
    """

    def __init__(self, task_type: str) -> None:
        self._task_type = task_type
        #: Whether a step runs now.
        self.in_step = False
        #: The step that ended the run, and what it raised; None while the run continues.
        self._ended_by: tuple[str, BaseException] | None = None

    def check(self, name: str) -> None:
        """Check that the run has not ended; call this before the step *name*.

        Raises:
            FlowInvalid: An earlier step has raised an error, and the function has caught the error.
            Suspended, TaskLost, CancelledError: The run has ended with this exception, which is raised again.
        """
        if self._ended_by is not None:
            failed, error = self._ended_by
            if not isinstance(error, Exception) or isinstance(error, TaskLost):
                raise error
            raise FlowInvalid(
                f"{self._task_type} called {name[:40]!r} after its step {failed!r} had raised "
                f"{type(error).__name__}; the next attempt repeats that step. Catch the error in the "
                "function of the step, and return a value for the flow"
            ) from error
        running = asyncio.current_task()
        if running is not None and running.cancelling():
            raise asyncio.CancelledError

    @contextmanager
    def step(self, name: str) -> Generator[None]:
        """Execute the ``with`` block as the step *name*; if the block raises, the run has ended."""
        self.in_step = True
        try:
            yield
        except BaseException as error:
            self._ended_by = (name, error)
            raise
        finally:
            self.in_step = False

    @property
    def is_suspended(self) -> bool:
        """Whether the run has ended because the flow waits."""
        return self._ended_by is not None and isinstance(self._ended_by[1], Suspended)
