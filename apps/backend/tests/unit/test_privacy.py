"""Nothing of what a writer wrote gets into an error, which may be logged."""

import pytest
from backend.genesis._state import Draft, GenesisSession
from backend.genesis.session import CreateSession, ProposalRequest, ReportFailure, ReportProposal
from pydantic import BaseModel, ValidationError
from shared_types.workspace import WorkspaceReply, WorkspaceThread
from shared_types.workspace_discussions_api import CreateReply, CreateThread, UpdateReply, UpdateThread


@pytest.mark.parametrize(
    "model",
    [
        *(CreateSession, Draft, GenesisSession, ProposalRequest, ReportFailure, ReportProposal),
        *(CreateReply, CreateThread, UpdateReply, UpdateThread, WorkspaceReply, WorkspaceThread),
    ],
)
def test_an_error_of_a_model_holds_nothing_of_its_input(model: type[BaseModel]) -> None:
    everywhere = {name: ["a private word"] for name in model.model_fields}
    with pytest.raises(ValidationError) as refused:
        model.model_validate(everywhere)
    assert "private" not in str(refused.value)
