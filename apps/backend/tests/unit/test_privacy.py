"""Validation errors, which may be logged, contain no text of a writer."""

import pytest
from backend.genesis._run_deciders import ReportGuidedRun
from backend.genesis._state import Draft, GenesisSession
from backend.genesis.session import CreateSession, ProposalRequest, ReportFailure, ReportProposal
from pydantic import BaseModel, ValidationError
from shared_types.workspace import WorkspaceReply, WorkspaceThread
from shared_types.workspace_discussions_api import CreateReply, CreateThread, UpdateReply, UpdateThread


@pytest.mark.parametrize(
    "model",
    [
        *(
            CreateSession,
            Draft,
            GenesisSession,
            ProposalRequest,
            ReportFailure,
            ReportProposal,
            ReportGuidedRun,
        ),
        *(CreateReply, CreateThread, UpdateReply, UpdateThread, WorkspaceReply, WorkspaceThread),
    ],
)
def test_validation_error_contains_no_input(model: type[BaseModel]) -> None:
    everywhere = {name: ["a private word"] for name in model.model_fields}
    with pytest.raises(ValidationError) as refused:
        model.model_validate(everywhere)
    assert "private" not in str(refused.value)
