"""The request and response bodies of Genesis."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from pydantic import ValidationError
from relaybox_types.api import CommandAccepted, CommandRequest, ErrorBody, TaskState
from relaybox_types.enums import CommandStatus, TaskStatus
from shared_types.genesis import GenesisStage, GenesisStatus
from shared_types.genesis_api import CreateSessionRequest, SessionState


def test_create_session_accepts_an_empty_body() -> None:
    assert CreateSessionRequest.model_validate({}).novel_id is None


@pytest.mark.parametrize("body", [{"novel_id": "seven"}, {"user_id": "mallory"}, []])
def test_create_session_refuses_other_bodies(body: object) -> None:
    with pytest.raises(ValidationError):
        CreateSessionRequest.model_validate(body)


def test_command_without_payload_has_an_empty_one() -> None:
    assert CommandRequest.model_validate({"command_type": "RequestConceptGeneration"}).payload == {}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"command_type": ""},
        {"command_type": "x" * 61},
        {"command_type": "Confirm\x00Stage"},
        {"command_type": "ConfirmStage", "payload": None},
        {"command_type": "ConfirmStage", "payload": []},
        {"command_type": "ConfirmStage", "session_id": "other"},
    ],
)
def test_invalid_command_body_is_refused(body: object) -> None:
    with pytest.raises(ValidationError):
        CommandRequest.model_validate(body)


def test_accepted_command_has_three_fields() -> None:
    command_id = uuid4()
    answer = CommandAccepted(command_id=command_id, status=CommandStatus.RECEIVED, message="Command accepted")
    assert answer.model_dump(mode="json") == {
        "command_id": str(command_id),
        "status": "RECEIVED",
        "message": "Command accepted",
    }


def test_new_session_shows_every_field_of_the_contract() -> None:
    state = SessionState(
        session_id=uuid4(),
        status=GenesisStatus.IN_PROGRESS,
        current_stage=GenesisStage.CONCEPT_SELECTION,
        is_pending=False,
        pending_command_type=None,
        confirmed_data=None,
        last_result=None,
        version=1,
    )
    assert list(state.model_dump()) == [
        "session_id",
        "status",
        "current_stage",
        "is_pending",
        "pending_command_type",
        "confirmed_data",
        "last_result",
        "version",
        "guided_run",
    ]


@pytest.mark.parametrize("progress", [-0.01, 100.01, float("nan")])
def test_progress_of_a_task_is_a_percentage(progress: float) -> None:
    now = datetime(2025, 1, 1, tzinfo=UTC)
    with pytest.raises(ValidationError, match="progress"):
        TaskState(
            task_id=uuid4(),
            task_type="concept_generation",
            status=TaskStatus.RUNNING,
            progress=progress,
            created_at=now,
            updated_at=now,
        )


@pytest.mark.parametrize("version", ["1", True, 2.0, 0, 2**31])
def test_expected_version_must_be_an_integer(version: object) -> None:
    with pytest.raises(ValidationError, match="expected_version"):
        CommandRequest.model_validate({"command_type": "ConfirmStage", "expected_version": version})


def test_error_body_can_have_more_fields() -> None:
    body = ErrorBody.model_validate(
        {
            "error_code": "DUPLICATE_COMMAND",
            "message": "Command already processing",
            "duplicate_command_id": "1",
        }
    )
    assert body.model_dump(exclude_none=True)["duplicate_command_id"] == "1"
