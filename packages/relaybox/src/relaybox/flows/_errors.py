"""Errors of flows.

::

    RelayboxError
    └── FlowError
        ├── FlowUnknown           no pause was requested with this correlation id
        ├── FlowAlreadyPaused     a pause of the correlation id is waiting
        ├── FlowAlreadyResumed    the pause was resumed, or a resume is kept for it
        ├── FlowExpired           the pause waited too long
        ├── FlowCancelled         the pause was cancelled
        ├── FlowDocumentInvalid   a document is too large, or cannot be stored
        ├── FlowInvalid           a flow's function or declaration breaks a rule
        ├── FlowChanged           a flow's function calls other steps than before
        ├── FlowEngineUnavailable an external engine does not respond
        ├── FlowRunRunning        a run of an external engine has not suspended itself yet
        └── FlowRunError          a call of an external engine can never succeed
            ├── FlowRunUnknown    the engine does not know the run
            ├── FlowRunEnded      the run has ended, though its pause has not
            └── FlowRunRefused    the engine refuses the call
"""

from datetime import datetime

from relaybox.errors import RelayboxError

__all__ = (
    "FlowAlreadyPaused",
    "FlowAlreadyResumed",
    "FlowCancelled",
    "FlowChanged",
    "FlowDocumentInvalid",
    "FlowEngineUnavailable",
    "FlowError",
    "FlowExpired",
    "FlowInvalid",
    "FlowRunEnded",
    "FlowRunError",
    "FlowRunRefused",
    "FlowRunRunning",
    "FlowRunUnknown",
    "FlowUnknown",
)


class FlowError(RelayboxError):
    """Base of the errors of this package."""

    error_code = "FLOW_ERROR"


class FlowUnknown(FlowError):
    """Raised when the pause to confirm or cancel was never requested, or was removed by retention."""

    error_code = "FLOW_UNKNOWN"

    def __init__(self, correlation_id: str) -> None:
        super().__init__(
            f"no pause has the correlation id {correlation_id!r}; request the pause first, "
            "and check the correlation id"
        )


class FlowAlreadyPaused(FlowError):
    """Raised when a pause is requested while another pause of the same correlation id waits."""

    error_code = "FLOW_ALREADY_PAUSED"

    def __init__(self, correlation_id: str) -> None:
        super().__init__(
            f"a pause with the correlation id {correlation_id!r} is waiting; resume or cancel that pause, "
            "or use another correlation id for this one"
        )


class FlowAlreadyResumed(FlowError):
    """Raised when the pause to resume, confirm or cancel was resumed before (G44).

    A pause that is not confirmed yet keeps its first resume; a second resume raises this error too.
    """

    error_code = "FLOW_ALREADY_RESUMED"

    def __init__(self, correlation_id: str) -> None:
        super().__init__(
            f"the pause with the correlation id {correlation_id!r} was resumed before; "
            "the payload of the first resume is used, and this call had no effect"
        )


class FlowExpired(FlowError):
    """Raised when the pause to resume, confirm or cancel, or the pause of a flow's wait, has expired."""

    error_code = "FLOW_EXPIRED"

    def __init__(self, correlation_id: str, expires_at: datetime | None) -> None:
        at = "" if expires_at is None else f" at {expires_at.isoformat(timespec='seconds')}"
        super().__init__(
            f"the pause with the correlation id {correlation_id!r} expired{at}; start the flow again, unless "
            "its function catches FlowExpired and continues"
        )


class FlowCancelled(FlowError):
    """Raised when the pause to resume, confirm or cancel, or the pause of a flow's wait, was cancelled."""

    error_code = "FLOW_CANCELLED"

    def __init__(self, correlation_id: str) -> None:
        super().__init__(
            f"the pause with the correlation id {correlation_id!r} was cancelled; start the flow again"
        )


class FlowDocumentInvalid(FlowError):
    """Raised when a document or a correlation id is too large, or PostgreSQL cannot store it.

    The documents are a ``resume_handle``, the payload of a resume, and the arguments and results of flows and
    steps.
    """

    error_code = "FLOW_DOCUMENT_INVALID"


class FlowInvalid(FlowError):
    """Raised when the declaration of a flow, or a call of one of its steps or waits, breaks a rule."""

    error_code = "FLOW_INVALID"


class FlowChanged(FlowError):
    """Raised when a flow's function calls another step than the recorded one, or returns before that step.

    The function was changed after the flow began, or is not deterministic. The recorded results belong to
    other steps than those that the function calls now, so the flow cannot continue.
    """

    error_code = "FLOW_CHANGED"

    def __init__(self, task_type: str, position: int, *, recorded: str, called: str | None) -> None:
        now = "ended" if called is None else f"called {called!r}"
        super().__init__(
            f"the function of {task_type} {now} as step {position + 1}, which was {recorded!r} before; "
            "restore the function for the flows that have begun, and give the changed one a new version"
        )


class FlowEngineUnavailable(FlowError):
    """Raised by an external engine that does not respond; the driver repeats the call every 5 s."""

    error_code = "FLOW_ENGINE_UNAVAILABLE"


class FlowRunRunning(FlowError):
    """Raised by an external engine whose run is not suspended yet; the driver calls again after 1 s."""

    error_code = "FLOW_RUN_RUNNING"


class FlowRunError(FlowError):
    """Base of the errors of an external engine for which a repeated call would fail in the same way."""

    error_code = "FLOW_RUN_ERROR"


class FlowRunUnknown(FlowRunError):
    """Raised when the engine does not know the run: its id is wrong, or the run was deleted."""

    error_code = "FLOW_RUN_UNKNOWN"

    def __init__(self, engine: str, run_id: str) -> None:
        super().__init__(
            f"{engine} knows no run {run_id!r}; the run was deleted, or belongs to another server: "
            "start the flow again"
        )


class FlowRunEnded(FlowRunError):
    """Raised when a run has ended before it was resumed: it crashed, or was cancelled in the engine."""

    error_code = "FLOW_RUN_ENDED"

    def __init__(self, engine: str, run_id: str, state: str) -> None:
        super().__init__(
            f"the run {run_id!r} of {engine} ended as {state} before it was resumed; start the flow again"
        )


class FlowRunRefused(FlowRunError):
    """Raised when the engine refuses to suspend, resume or cancel the run."""

    error_code = "FLOW_RUN_REFUSED"
