"""The state of a genesis session, and for each event type the pure function that changes the state."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from relaybox.commands import Aggregate, Event
from shared_types.genesis import GenesisStage, GenesisStatus, GuidedRunStatus

__all__ = (
    "FEEDBACK_MAX",
    "NAME",
    "TRANSITIONS",
    "Draft",
    "Failure",
    "GenesisSession",
    "GuidedRun",
    "PendingRequest",
)

Document = dict[str, Any]

NAME: Final = "Genesis.Session"
"""The prefix of the names of all events of the domain."""

FEEDBACK_MAX: Final = 8
"""Maximum number of pieces of feedback in a stage; older pieces are removed.

With all confirmed data they must fit into one event, which is the input of the agent.
"""
_PASSED: Final = {stage: frozenset(list(GenesisStage)[:at]) for at, stage in enumerate(GenesisStage)}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class PendingRequest(_Part):
    """A request for a proposal that has no result yet; the agent's report names its ``command_id``."""

    command_id: UUID
    command_type: str


class Failure(_Part):
    """The error with which an agent reported that the last request failed."""

    command_id: UUID
    error_code: str
    message: str


class Draft(_Part):
    """The state of the current stage before its confirmation.

    A proposal is stored as the JSON document in its event, and not as a model, so that a later release with
    stricter models can still read the draft.
    """

    #: The preferences of the last RequestConceptGeneration or StartGuidedRun; they apply to all later
    #: proposals. Empty before the first such command.
    preferences: Document = {}
    #: The request that an agent works on; None if no request is pending.
    request: PendingRequest | None = None
    #: The stage's last proposal, with the id of the command that requested the proposal; None before the
    #: first.
    proposal: Document | None = None
    #: The error of the last request; None if that request did not fail.
    failure: Failure | None = None


class GuidedRun(_Part):
    """A run in which a flow requests the proposals; at most one is active at a time."""

    #: Id of the run and of its flow: that of the command StartGuidedRun.
    run_id: UUID
    status: GuidedRunStatus
    #: Time (ISO 8601) when the run expires; None until its flow has begun.
    expires_at: str | None = None
    #: Whether the flow must request a proposal when no request is pending.
    request_due: bool
    #: Number of failed requests since the last proposal.
    failures: int = 0

    @property
    def active(self) -> bool:
        """Whether the run has not ended."""
        return self.status in (GuidedRunStatus.REQUESTED, GuidedRunStatus.RUNNING)


class GenesisSession(Aggregate):
    """The work of a writer from a first concept to a finished outline.

    Invariants: `confirmed_data` has exactly the stages before the current one; the session is COMPLETED if
    and only if its stage is FINISHED; a session that is not IN_PROGRESS has no pending request. An erased
    session keeps its id, its owner and its version, and stays ABANDONED.
    """

    novel_id: UUID | None = None
    status: GenesisStatus = GenesisStatus.IN_PROGRESS
    current_stage: GenesisStage = GenesisStage.CONCEPT_SELECTION
    #: The confirmed content of each earlier stage, by stage; None before the first confirmation.
    confirmed_data: Document | None = None
    #: None before the first request or guided run, and at the start of a stage if there are no preferences to
    #: keep.
    draft: Draft | None = None
    #: The writer's feedback in this stage, oldest first, at most `FEEDBACK_MAX` pieces. Stored outside the
    #: draft, because each UPDATE of the draft's column writes the whole proposal.
    feedback: tuple[Document, ...] = ()
    #: True if the content of the session's events was erased; stays true.
    erased: bool = False
    #: The last guided run; None if there was none.
    guided_run: GuidedRun | None = None

    def check(self) -> None:
        """Assert the invariants; an AssertionError is a defect of the code."""
        assert set(self.confirmed_data or {}) == _PASSED[self.current_stage]
        # After StageConfirmed of the last stage, and before Finished, the status is not COMPLETED yet.
        assert self.status is not GenesisStatus.COMPLETED or self.current_stage is GenesisStage.FINISHED
        assert self.status is GenesisStatus.IN_PROGRESS or self.pending is None

    @property
    def pending(self) -> PendingRequest | None:
        """Return the request that an agent works on, or None."""
        return self.draft.request if self.draft else None

    @property
    def last_result(self) -> Document | None:
        """Return the result of the last request in the current stage: a proposal or an error; else None."""
        draft = self.draft or Draft()
        if failure := draft.failure:
            error = failure.model_dump(mode="json", exclude={"command_id"})
            return {"command_id": str(failure.command_id), "status": "FAILED", "error": error}
        if proposal := draft.proposal:
            return {**proposal, "status": "COMPLETED"}
        return None

    def without_content(self) -> Self:
        """Return the session after an erasure of its content.

        The trigger `genesis_sessions_erased` in PostgreSQL writes the same values to the row.
        """
        empty = type(self)(id=self.id, owner=self.owner, version=self.version)
        return empty.model_copy(update={"status": GenesisStatus.ABANDONED, "erased": True})

    def apply(self, event: Event) -> Self:
        """Return the state after *event*.

        Raises:
            ValueError: The event type is unknown.
        """
        change = TRANSITIONS.get(event.type)
        if change is None:
            raise ValueError(
                f"{event.type} is not an event of a genesis session; known are {', '.join(TRANSITIONS)}"
            )
        after = self.model_copy(update=dict(change(self, event.payload)))
        after.check()
        return after


Transition = Callable[[GenesisSession, Mapping[str, Any]], Mapping[str, Any]]


def _created(_session: GenesisSession, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    novel_id = payload["novel_id"]
    return {
        "owner": payload["user_id"],
        "novel_id": UUID(novel_id) if novel_id else None,
        "current_stage": GenesisStage(payload["current_stage"]),
    }


def _concept_generation_requested(session: GenesisSession, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    request = PendingRequest(command_id=payload["command_id"], command_type="RequestConceptGeneration")
    changes = _with_draft(session, preferences=payload["request_params"], request=request, failure=None)
    return {**changes, **_with_run(session, request_due=False)}


def _stage_proposal_requested(session: GenesisSession, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    request = PendingRequest(command_id=payload["command_id"], command_type="RequestStageProposal")
    return {
        **_with_draft(session, request=request, failure=None),
        **_with_run(session, request_due=False),
    }


def _proposed(session: GenesisSession, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    proposal = {"command_id": payload["command_id"], "proposal": payload["proposal"]}
    return {
        **_with_draft(session, request=None, proposal=proposal, failure=None),
        **_with_run(session, failures=0),
    }


def _failed(session: GenesisSession, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    failure = Failure(command_id=payload["command_id"], **payload["reason"])
    run = session.guided_run
    return {
        **_with_draft(session, request=None, failure=failure),
        **_with_run(session, request_due=True, failures=run.failures + 1 if run else 0),
    }


def _feedback_submitted(session: GenesisSession, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    remark = {"feedback": payload["feedback"], "rating": payload["rating"]}
    feedback = (*session.feedback, remark)[-FEEDBACK_MAX:]
    return {"feedback": feedback, **_with_run(session, request_due=True)}


def _stage_confirmed(session: GenesisSession, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    preferences = session.draft.preferences if session.draft else {}
    return {
        "confirmed_data": {**(session.confirmed_data or {}), payload["stage"]: payload["content"]},
        "current_stage": GenesisStage(payload["next_stage"]),
        "draft": Draft(preferences=preferences) if preferences else None,
        "feedback": (),
        **_with_run(session, request_due=True),
    }


def _finished(_session: GenesisSession, _payload: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"status": GenesisStatus.COMPLETED}


def _updated(session: GenesisSession, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    draft = session.draft and session.draft.model_copy(update={"request": None})
    return {"status": GenesisStatus(payload["status"]), "draft": draft}


def _guided_run_requested(session: GenesisSession, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    has_proposal = session.draft is not None and session.draft.proposal is not None
    run = GuidedRun(
        run_id=payload["run_id"],
        status=GuidedRunStatus.REQUESTED,
        request_due=session.pending is None and not has_proposal,
    )
    return {"guided_run": run, **_with_draft(session, preferences=payload["preferences"])}


def _guided_run_changed(session: GenesisSession, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    changes: dict[str, Any] = {"status": GuidedRunStatus(payload["status"])}
    if "expires_at" in payload:
        changes["expires_at"] = payload["expires_at"]
    return _with_run(session, **changes)


def _with_draft(session: GenesisSession, **changes: Any) -> Mapping[str, Any]:
    return {"draft": (session.draft or Draft()).model_copy(update=changes)}


def _with_run(session: GenesisSession, **changes: Any) -> Mapping[str, Any]:
    run = session.guided_run
    return {"guided_run": run.model_copy(update=changes)} if run is not None and run.active else {}


TRANSITIONS: Final[Mapping[str, Transition]] = {
    f"{NAME}.Created": _created,
    f"{NAME}.ConceptGenerationRequested": _concept_generation_requested,
    f"{NAME}.ConceptProposed": _proposed,
    f"{NAME}.ConceptGenerationFailed": _failed,
    f"{NAME}.StageProposalRequested": _stage_proposal_requested,
    f"{NAME}.StageProposed": _proposed,
    f"{NAME}.StageProposalFailed": _failed,
    f"{NAME}.FeedbackSubmitted": _feedback_submitted,
    f"{NAME}.StageConfirmed": _stage_confirmed,
    f"{NAME}.Finished": _finished,
    f"{NAME}.Updated": _updated,
    f"{NAME}.GuidedRunRequested": _guided_run_requested,
    f"{NAME}.GuidedRunCreated": _guided_run_changed,
    f"{NAME}.GuidedRunUpdated": _guided_run_changed,
    f"{NAME}.GuidedRunFinished": _guided_run_changed,
    f"{NAME}.GuidedRunFailed": _guided_run_changed,
}
"""For each event type the function that returns the changed fields of the session.

Never remove an entry: a rebuild applies events of all releases.
"""
