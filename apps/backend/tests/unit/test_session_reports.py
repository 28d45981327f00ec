"""The reports of an agent, and those that are superseded."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from backend.genesis import ProposalRequest, ReportSuperseded, WrongStage
from relaybox.commands import Command, PayloadInvalid, UnknownCommand
from relaybox.commands._decide import LoadedAggregate, decide
from relaybox.outbox import OutboxSettings
from relaybox_types.enums import CommandStatus, TaskStatus
from shared_types.genesis import GenesisStage

from tests.fixtures.story import STAGES, WRITER, Story, content, genesis, proposal

Report = Callable[[Story, UUID], None]
CONCEPT = GenesisStage.CONCEPT_SELECTION


def success(story: Story, command_id: UUID) -> None:
    made = proposal(story.session.current_stage)
    story.send("ReportProposal", {"command_id": str(command_id), "proposal": made})


def failure(story: Story, command_id: UUID) -> None:
    why = {"error_code": "MUSE_TIMED_OUT", "message": "no answer in time"}
    story.send("ReportFailure", {"command_id": str(command_id), **why})


both = pytest.mark.parametrize("report", [success, failure])


@pytest.fixture
def story() -> Story:
    return Story()


def last_name(story: Story) -> str:
    return story.events[-1]["event_type"]


@pytest.mark.parametrize("stage", STAGES)
def test_request_event_is_sufficient_for_an_agent(story: Story, stage: GenesisStage) -> None:
    story.advance_to(stage)
    command_id = story.request({"notes": "an island"})
    wanted = ProposalRequest.model_validate(story.events[-1]["payload"])
    assert (wanted.session_id, wanted.command_id, wanted.stage) == (story.id, command_id, stage)
    assert wanted.request_params.notes == "an island"
    assert list(wanted.confirmed_data) == STAGES[: STAGES.index(stage)]


@pytest.mark.parametrize("stage", STAGES)
def test_proposal_completes_its_command_and_its_task(story: Story, stage: GenesisStage) -> None:
    story.advance_to(stage)
    command_id = story.request()
    made = story.propose()
    named = "ConceptProposed" if stage is CONCEPT else "StageProposed"
    assert last_name(story) == f"Genesis.Session.{named}"
    end = story.settled[command_id]
    assert (end.command_status, end.task_status) == (CommandStatus.COMPLETED, TaskStatus.COMPLETED)
    assert end.result["options"] == made["options"]
    assert not story.pending
    assert story.session.pending is None


@pytest.mark.parametrize("stage", STAGES)
def test_failure_ends_its_command_and_session_accepts_commands(story: Story, stage: GenesisStage) -> None:
    story.advance_to(stage)
    command_id = story.request()
    failure(story, command_id)
    named = "ConceptGenerationFailed" if stage is CONCEPT else "StageProposalFailed"
    reason = {"error_code": "MUSE_TIMED_OUT", "message": "no answer in time"}
    assert last_name(story) == f"Genesis.Session.{named}"
    assert story.events[-1]["payload"]["reason"] == reason
    end = story.settled[command_id]
    assert (end.command_status, end.task_status) == (CommandStatus.FAILED, TaskStatus.FAILED)
    assert end.error == reason
    story.request()
    story.propose()


def test_proposal_is_kept_after_a_later_failure(story: Story) -> None:
    story.request()
    options = story.propose()["options"]
    failure(story, story.request())
    story.send("ConfirmStage", {"choice": 2})
    assert (story.session.confirmed_data or {})[CONCEPT] == options[2]


@pytest.mark.guarantee("G06")
@both
def test_second_report_for_one_request_is_superseded(story: Story, report: Report) -> None:
    command_id = story.request()
    failure(story, command_id)
    with pytest.raises(ReportSuperseded, match=str(command_id)):
        report(story, command_id)


@pytest.mark.guarantee("G06")
@both
def test_late_report_does_not_complete_a_later_request(story: Story, report: Report) -> None:
    earlier = story.request()
    failure(story, earlier)
    later = story.request()
    with pytest.raises(ReportSuperseded):
        report(story, earlier)
    assert story.session.pending is not None
    assert story.session.pending.command_id == later


@both
def test_report_without_a_request_is_superseded(story: Story, report: Report) -> None:
    with pytest.raises(ReportSuperseded):
        report(story, uuid4())


@both
def test_report_on_an_abandoned_session_is_superseded(story: Story, report: Report) -> None:
    command_id = story.request()
    story.send("AbandonSession")
    with pytest.raises(ReportSuperseded):
        report(story, command_id)


def test_proposal_for_another_stage_is_refused(story: Story) -> None:
    command_id = story.request()
    wrong = proposal(GenesisStage.WORLDVIEW)
    with pytest.raises(WrongStage):
        story.send("ReportProposal", {"command_id": str(command_id), "proposal": wrong})


def test_proposal_with_invalid_content_is_refused(story: Story) -> None:
    command_id = story.request()
    broken = {"stage": "CONCEPT_SELECTION", "options": [{**content(CONCEPT), "title": ""}] * 3}
    with pytest.raises(PayloadInvalid):
        story.send("ReportProposal", {"command_id": str(command_id), "proposal": broken})


@pytest.mark.parametrize("command_type", ["ReportProposal", "ReportFailure"])
def test_writer_cannot_send_an_agents_report(story: Story, command_type: str) -> None:
    command = Command(aggregate_id=story.id, command_type=command_type, payload={}, caller=WRITER)
    loaded = LoadedAggregate(owner="writer", state=story.session.model_dump_json(), pending={})
    with pytest.raises(UnknownCommand):
        decide(genesis, command, loaded, OutboxSettings())


def test_last_result_is_that_of_the_last_request(story: Story) -> None:
    seen: list[Any] = [story.session.last_result]
    first = story.request()
    seen.append(story.session.last_result)
    made = story.propose()
    seen.append(story.session.last_result)
    failure(story, second := story.request())
    seen.append(story.session.last_result)
    story.request()
    seen.append(story.session.last_result)
    reason = {"error_code": "MUSE_TIMED_OUT", "message": "no answer in time"}
    proposed = {"command_id": str(first), "status": "COMPLETED", "proposal": seen[2]["proposal"]}
    assert seen[2]["proposal"]["options"] == made["options"]
    assert seen == [
        None,
        None,
        proposed,
        {"command_id": str(second), "status": "FAILED", "error": reason},
        proposed,
    ]


def test_next_stage_starts_without_a_result(story: Story) -> None:
    story.request()
    story.propose()
    story.send("ConfirmStage", {"choice": 0})
    assert story.session.last_result is None
