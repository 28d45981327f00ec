"""The deciders of a session's guided run.

::

    StartGuidedRun ──► REQUESTED ── flow begins ──► RUNNING ── flow ends ──► FINISHED | EXPIRED | FAILED
                           └── StopGuidedRun, AbandonSession ──┴──► STOPPED

The flow in ``guiding`` works on the run: it reports by internal commands. Each decision of the writer, and
each failed proposal, also records GuidedRunUpdated, the event for which the flow waits.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict
from relaybox.commands import Events, EventType
from relaybox_types.text import Remark, Word
from shared_types.genesis import GenesisStatus, GuidedRunStatus, Preferences, StartGuidedRun, StopGuidedRun

from backend.genesis._errors import GuidedRunActive, GuidedRunInactive, SessionClosed, SessionErased
from backend.genesis._events import (
    GUIDED_RUN_CREATED,
    GUIDED_RUN_FAILED,
    GUIDED_RUN_FINISHED,
    GUIDED_RUN_REQUESTED,
    GUIDED_RUN_UPDATED,
    genesis,
)
from backend.genesis._state import GenesisSession, GuidedRun

__all__ = ("ReportGuidedRun", "RunFailure", "require_open", "updated_run")


class _Payload(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class RunFailure(_Payload):
    """Why a guided run failed."""

    error_code: Word
    message: Remark


class ReportGuidedRun(_Payload):
    """Report that the flow of the run ``run_id`` has begun or ended."""

    run_id: UUID
    status: Literal[
        GuidedRunStatus.RUNNING, GuidedRunStatus.FINISHED, GuidedRunStatus.EXPIRED, GuidedRunStatus.FAILED
    ]
    #: With RUNNING: the time when the run will expire.
    expires_at: AwareDatetime | None = None
    #: With FAILED: the reason.
    reason: RunFailure | None = None


_REPORTED: Final[Mapping[GuidedRunStatus, EventType]] = {
    GuidedRunStatus.RUNNING: GUIDED_RUN_CREATED,
    GuidedRunStatus.FINISHED: GUIDED_RUN_FINISHED,
    GuidedRunStatus.EXPIRED: GUIDED_RUN_UPDATED,
    GuidedRunStatus.FAILED: GUIDED_RUN_FAILED,
}


@genesis.command(refuses=[SessionErased, SessionClosed, GuidedRunActive])
def start_guided_run(session: GenesisSession, command: StartGuidedRun, command_id: UUID) -> Events:
    """Request a guided run, whose flow requests the proposals from the current stage to the last one.

    Preferences that *command* omits keep the last value that the writer gave in the session.

    Raises:
        SessionErased, SessionClosed: The session has ended.
        GuidedRunActive: Another run is active.
    """
    require_open(session)
    if session.guided_run is not None and session.guided_run.active:
        raise GuidedRunActive(session.guided_run.run_id)
    known = (session.draft and session.draft.preferences) or Preferences().model_dump(mode="json")
    payload = {
        "session_id": str(session.id),
        "run_id": str(command_id),
        "stage": session.current_stage.value,
        "preferences": {**known, **command.model_dump(mode="json", exclude_unset=True)},
    }
    return [GUIDED_RUN_REQUESTED(payload)]


@genesis.command(refuses=[SessionErased, SessionClosed, GuidedRunInactive])
def stop_guided_run(session: GenesisSession, _command: StopGuidedRun) -> Events:
    """End the active guided run.

    Raises:
        SessionErased, SessionClosed: The session has ended.
        GuidedRunInactive: No run is active.
    """
    require_open(session)
    if not (stopped := updated_run(session, GuidedRunStatus.STOPPED)):
        raise GuidedRunInactive
    return stopped


@genesis.command(internal=True, refuses=[GuidedRunInactive])
def report_guided_run(session: GenesisSession, command: ReportGuidedRun) -> Events:
    """Record that the flow of the run has begun or ended; also for a session that has ended.

    Raises:
        GuidedRunInactive: The run has ended, or another run is active.
    """
    run = session.guided_run
    if run is None or run.run_id != command.run_id or not run.active:
        raise GuidedRunInactive
    report = command.model_dump(mode="json", include={"expires_at", "reason"}, exclude_none=True)
    return [_REPORTED[command.status]({**_reference(session, run, command.status), **report})]


def updated_run(session: GenesisSession, status: GuidedRunStatus | None = None) -> Events:
    """Return the event that wakes the flow of the active guided run; empty if no run is active.

    *status* is the new status of the run; None keeps the status.
    """
    run = session.guided_run
    if run is None or not run.active:
        return []
    return [GUIDED_RUN_UPDATED(_reference(session, run, status or run.status))]


def require_open(session: GenesisSession) -> None:
    """Check that the session accepts commands.

    Raises:
        SessionErased, SessionClosed: The session has ended.
    """
    if session.erased:
        raise SessionErased
    if session.status is not GenesisStatus.IN_PROGRESS:
        raise SessionClosed(session.status)


def _reference(session: GenesisSession, run: GuidedRun, status: GuidedRunStatus) -> dict[str, Any]:
    return {"session_id": str(session.id), "run_id": str(run.run_id), "status": status.value}
