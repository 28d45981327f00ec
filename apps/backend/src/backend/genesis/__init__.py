"""Genesis: sessions in which a writer plans a novel, from a first concept to a plot outline, in stages."""

from backend.genesis._errors import (
    ChoiceInvalid,
    GuidedRunActive,
    GuidedRunInactive,
    NoProposal,
    ProposalPending,
    ReportSuperseded,
    SessionClosed,
    SessionErased,
    StageContentInvalid,
    WrongStage,
)
from backend.genesis._rebuild import SessionProjection
from backend.genesis._state import FEEDBACK_MAX, Draft, Failure, GenesisSession, GuidedRun, PendingRequest
from backend.genesis.session import CreateSession, ProposalRequest, ReportFailure, ReportProposal, genesis

__all__ = (
    "FEEDBACK_MAX",
    "ChoiceInvalid",
    "CreateSession",
    "Draft",
    "Failure",
    "GenesisSession",
    "GuidedRun",
    "GuidedRunActive",
    "GuidedRunInactive",
    "NoProposal",
    "PendingRequest",
    "ProposalPending",
    "ProposalRequest",
    "ReportFailure",
    "ReportProposal",
    "ReportSuperseded",
    "SessionClosed",
    "SessionErased",
    "SessionProjection",
    "StageContentInvalid",
    "WrongStage",
    "genesis",
)
