"""The deciders of a genesis session: pure functions from the session and a command to events.

A session passes the stages in order. In each stage the writer requests a proposal from an agent, gives
feedback, and confirms the stage with an option of the proposal or with content of the writer. At most one
request is pending at a time. The agent reports the result by an internal command that contains the request's
command id.
"""

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError
from relaybox.commands import Events, EventType, Settlement
from relaybox.errors import error_details
from relaybox_types.enums import CommandStatus, TaskStatus
from relaybox_types.text import Remark, Word
from shared_types.genesis import (
    STAGE_CONTENT,
    AbandonSession,
    AnyContent,
    ConfirmStage,
    Feedback,
    GenesisStage,
    GenesisStatus,
    GuidedRunStatus,
    Preferences,
    Proposal,
    RequestConceptGeneration,
    RequestStageProposal,
    SubmitFeedback,
)

from backend.genesis._errors import (
    ChoiceInvalid,
    NoProposal,
    ProposalPending,
    ReportSuperseded,
    SessionClosed,
    SessionErased,
    StageContentInvalid,
    WrongStage,
)
from backend.genesis._events import (
    CONCEPT_GENERATION_FAILED,
    CONCEPT_GENERATION_REQUESTED,
    CONCEPT_PROPOSED,
    CREATED,
    FEEDBACK_SUBMITTED,
    FINISHED,
    SQL,
    STAGE_CONFIRMED,
    STAGE_PROPOSAL_FAILED,
    STAGE_PROPOSAL_REQUESTED,
    STAGE_PROPOSED,
    UPDATED,
    genesis,
)
from backend.genesis._run_deciders import require_open, updated_run
from backend.genesis._state import Draft, GenesisSession, PendingRequest

__all__ = ("SQL", "CreateSession", "ProposalRequest", "ReportFailure", "ReportProposal", "genesis")

_NEXT_STAGE: Final[Mapping[GenesisStage, GenesisStage]] = MappingProxyType(dict(pairwise(GenesisStage)))


class _Payload(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class CreateSession(_Payload):
    """Create a session."""

    #: Id of a novel in another system; None if there is none.
    novel_id: UUID | None = None


class ReportProposal(_Payload):
    """Report an agent's proposal for the request with the id ``command_id``."""

    command_id: UUID
    proposal: Proposal


class ReportFailure(_Payload):
    """Report that an agent could not fulfil the request with the id ``command_id``."""

    command_id: UUID
    error_code: Word
    message: Remark


class ProposalRequest(BaseModel):
    """Payload of ConceptGenerationRequested and StageProposalRequested; the complete input of an agent."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    session_id: UUID
    #: Id of the command that requests the proposal; the report must contain it.
    command_id: UUID
    stage: GenesisStage
    #: The writer's preferences, with the notes of this request.
    request_params: Preferences
    #: The contents of all earlier stages.
    confirmed_data: dict[GenesisStage, AnyContent]
    #: The writer's feedback in this stage, oldest first.
    feedback: tuple[Feedback, ...]


@genesis.command(creates=True)
def create_session(session: GenesisSession, command: CreateSession) -> Events:
    """Create the session in the first stage."""
    novel_id = str(command.novel_id) if command.novel_id else None
    payload = {
        "session_id": str(session.id),
        "user_id": session.owner,
        "novel_id": novel_id,
        "current_stage": session.current_stage.value,
    }
    return [CREATED(payload)]


@genesis.command(pending=True, refuses=[SessionErased, SessionClosed, WrongStage, ProposalPending])
def request_concept_generation(
    session: GenesisSession, command: RequestConceptGeneration, command_id: UUID
) -> Events:
    """Request concepts from an agent; preferences that the command omits keep their last value.

    Raises:
        SessionErased, SessionClosed: The session has ended.
        WrongStage: The current stage is not CONCEPT_SELECTION.
        ProposalPending: Another request is pending.
    """
    draft = _require_idle(session)
    if session.current_stage is not GenesisStage.CONCEPT_SELECTION:
        raise WrongStage(
            "concepts are generated in CONCEPT_SELECTION", session.current_stage, "send RequestStageProposal"
        )
    known = draft.preferences or Preferences().model_dump(mode="json")
    params = {**known, **command.model_dump(mode="json", exclude_unset=True)}
    return [CONCEPT_GENERATION_REQUESTED(_request_payload(session, command_id, params))]


@genesis.command(pending=True, refuses=[SessionErased, SessionClosed, WrongStage, ProposalPending])
def request_stage_proposal(
    session: GenesisSession, command: RequestStageProposal, command_id: UUID
) -> Events:
    """Request a proposal for the current stage from an agent; the command's notes apply to this request only.

    Raises:
        SessionErased, SessionClosed: The session has ended.
        WrongStage: The current stage is CONCEPT_SELECTION, which has another command.
        ProposalPending: Another request is pending.
    """
    draft = _require_idle(session)
    if session.current_stage is GenesisStage.CONCEPT_SELECTION:
        raise WrongStage(
            "RequestStageProposal is for the later stages",
            session.current_stage,
            "send RequestConceptGeneration",
        )
    known = draft.preferences or Preferences().model_dump(mode="json")
    params = {**known, **command.model_dump(mode="json", exclude_unset=True)}
    return [STAGE_PROPOSAL_REQUESTED(_request_payload(session, command_id, params))]


@genesis.command(refuses=[SessionErased, SessionClosed, ProposalPending, NoProposal])
def submit_feedback(session: GenesisSession, command: SubmitFeedback) -> Events:
    """Record the writer's feedback on the last proposal; the next request includes the feedback.

    Raises:
        SessionErased, SessionClosed: The session has ended.
        ProposalPending: A request is pending.
        NoProposal: The stage has no proposal yet.
    """
    if _require_idle(session).proposal is None:
        raise NoProposal(session.current_stage, "request a proposal first")
    stage = session.current_stage.value
    remark = command.model_dump(mode="json")
    submitted = FEEDBACK_SUBMITTED({"session_id": str(session.id), "stage": stage, **remark})
    return [submitted, *updated_run(session)]


@genesis.command(
    refuses=[
        SessionErased,
        SessionClosed,
        ProposalPending,
        WrongStage,
        NoProposal,
        ChoiceInvalid,
        StageContentInvalid,
    ]
)
def confirm_stage(session: GenesisSession, command: ConfirmStage) -> Events:
    """Confirm the current stage and continue with the next; the last stage finishes the session.

    Raises:
        SessionErased, SessionClosed: The session has ended.
        ProposalPending: A request is pending.
        WrongStage: The command names another stage than the current one. The second request of a double click
            does, because the first request has ended the stage.
        NoProposal: The command chooses an option, but the stage has no proposal.
        ChoiceInvalid: The last proposal has no option with this number.
        StageContentInvalid: The writer's own content is not valid for the stage.
    """
    draft = _require_idle(session)
    stage = session.current_stage
    if command.stage not in (None, stage):
        raise WrongStage(
            f"the command confirms {command.stage}", stage, "read the state and confirm that stage"
        )
    following = _NEXT_STAGE[stage]
    confirmed = STAGE_CONFIRMED(
        {
            "session_id": str(session.id),
            "stage": stage.value,
            "choice": command.choice,
            "content": _chosen_content(stage, draft, command),
            "next_stage": following.value,
        }
    )
    if following is not GenesisStage.FINISHED:
        return [confirmed, *updated_run(session)]
    return [confirmed, FINISHED({"session_id": str(session.id)}), *updated_run(session)]


@genesis.command(refuses=[SessionErased, SessionClosed])
def abandon_session(session: GenesisSession, command: AbandonSession) -> Events:
    """End the session; a pending request fails and its task is cancelled.

    Raises:
        SessionErased, SessionClosed: The session has ended already.
    """
    require_open(session)
    payload = {
        "session_id": str(session.id),
        "status": GenesisStatus.ABANDONED.value,
        "reason": command.reason,
    }
    end = session.pending and Settlement(
        command_id=session.pending.command_id,
        command_status=CommandStatus.FAILED,
        task_status=TaskStatus.CANCELLED,
        error={"error_code": "SESSION_ABANDONED", "message": "the writer abandoned the session"},
    )
    return [*updated_run(session, GuidedRunStatus.STOPPED), UPDATED(payload, settles=end)]


@genesis.command(internal=True, refuses=[ReportSuperseded, WrongStage])
def report_proposal(session: GenesisSession, command: ReportProposal) -> Events:
    """Record an agent's proposal and complete the pending request.

    Raises:
        ReportSuperseded: The request is not pending.
        WrongStage: The proposal is for another stage than the request.
    """
    _require_pending(session, command.command_id)
    if command.proposal.stage is not session.current_stage:
        raise WrongStage(
            f"the proposal is for {command.proposal.stage}",
            session.current_stage,
            "propose the requested stage",
        )
    proposal = command.proposal.model_dump(mode="json")
    end = Settlement(
        command_id=command.command_id,
        command_status=CommandStatus.COMPLETED,
        task_status=TaskStatus.COMPLETED,
        result=proposal,
    )
    proposed = _event_for_stage(session, CONCEPT_PROPOSED, STAGE_PROPOSED)
    return [proposed({**_request_reference(session, command.command_id), "proposal": proposal}, settles=end)]


@genesis.command(internal=True, refuses=[ReportSuperseded])
def report_failure(session: GenesisSession, command: ReportFailure) -> Events:
    """Record that the pending request failed; the session accepts commands again.

    Raises:
        ReportSuperseded: The request is not pending.
    """
    _require_pending(session, command.command_id)
    reason = {"error_code": command.error_code, "message": command.message}
    end = Settlement(
        command_id=command.command_id,
        command_status=CommandStatus.FAILED,
        task_status=TaskStatus.FAILED,
        error=reason,
    )
    failed = _event_for_stage(session, CONCEPT_GENERATION_FAILED, STAGE_PROPOSAL_FAILED)
    reference = _request_reference(session, command.command_id)
    return [failed({**reference, "reason": reason}, settles=end), *updated_run(session)]


def _require_idle(session: GenesisSession) -> Draft:
    """Return the session's draft.

    Raises:
        SessionErased, SessionClosed: The session has ended.
        ProposalPending: A request is pending.
    """
    require_open(session)
    if session.pending:
        raise ProposalPending(session.pending.command_id)
    return session.draft or Draft()


def _require_pending(session: GenesisSession, command_id: UUID) -> PendingRequest:
    # Do not check the status: an agent that reports to an ended session must get ReportSuperseded as well.
    if session.pending is None or session.pending.command_id != command_id:
        raise ReportSuperseded(command_id)
    return session.pending


def _request_payload(
    session: GenesisSession, command_id: UUID, params: Mapping[str, Any]
) -> Mapping[str, Any]:
    return {
        **_request_reference(session, command_id),
        "request_params": params,
        "confirmed_data": session.confirmed_data or {},
        "feedback": list(session.feedback),
    }


def _request_reference(session: GenesisSession, command_id: UUID) -> Mapping[str, Any]:
    return {
        "session_id": str(session.id),
        "command_id": str(command_id),
        "stage": session.current_stage.value,
    }


def _event_for_stage(session: GenesisSession, concept: EventType, later: EventType) -> EventType:
    return concept if session.current_stage is GenesisStage.CONCEPT_SELECTION else later


def _chosen_content(stage: GenesisStage, draft: Draft, command: ConfirmStage) -> Mapping[str, Any]:
    if command.choice is None:
        return _checked_content(stage, command.content or {})
    if draft.proposal is None:
        raise NoProposal(stage, "request a proposal, or send your own `content` instead of `choice`")
    options = draft.proposal["proposal"]["options"]
    if command.choice >= len(options):
        raise ChoiceInvalid(command.choice, len(options))
    return options[command.choice]


def _checked_content(stage: GenesisStage, content: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return STAGE_CONTENT[stage].model_validate(content).model_dump(mode="json")
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False, include_context=False)
        raise StageContentInvalid(stage, error_details(problems, "payload.content")) from None
