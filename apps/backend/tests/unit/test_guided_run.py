"""The deciders of guided runs."""

from uuid import uuid4

import pytest
from backend.genesis import GuidedRunActive, GuidedRunInactive, SessionClosed
from shared_types.genesis import GuidedRunStatus

from tests.fixtures.story import STAGES, Story

EXPIRES_AT = "2026-01-01T00:00:00Z"


@pytest.fixture
def story() -> Story:
    story = Story()
    story.send("StartGuidedRun")
    return story


def run_status(story: Story) -> GuidedRunStatus:
    run = story.session.guided_run
    assert run is not None
    return run.status


def report(story: Story, status: str, **fields: str) -> None:
    run = story.session.guided_run
    assert run is not None
    story.send("ReportGuidedRun", {"run_id": str(run.run_id), "status": status, **fields})


def request_due(story: Story) -> bool:
    run = story.session.guided_run
    assert run is not None
    return run.request_due


def test_run_has_the_id_of_its_command() -> None:
    story = Story()
    run_id = story.send("StartGuidedRun")
    run = story.session.guided_run
    assert run is not None
    assert (run.run_id, run.status, run.expires_at) == (run_id, GuidedRunStatus.REQUESTED, None)


def test_begun_run_has_its_time_limit(story: Story) -> None:
    report(story, "RUNNING", expires_at=EXPIRES_AT)
    run = story.session.guided_run
    assert run is not None
    assert (run.status, run.expires_at) == (GuidedRunStatus.RUNNING, EXPIRES_AT)
    assert story.replayed() == story.session


def test_given_preferences_apply_to_the_requests_of_the_run() -> None:
    story = Story()
    story.request({"theme_preferences": ["mystery"], "language": "en"})
    story.propose()
    story.send("StartGuidedRun", {"theme_preferences": ["fog"]})
    story.request()
    params = story.events[-1]["payload"]["request_params"]
    assert (params["theme_preferences"], params["language"]) == (["fog"], "en")


def test_second_run_is_refused_until_the_first_has_ended(story: Story) -> None:
    with pytest.raises(GuidedRunActive):
        story.send("StartGuidedRun")
    story.send("StopGuidedRun")
    assert run_status(story) is GuidedRunStatus.STOPPED
    with pytest.raises(GuidedRunInactive):
        story.send("StopGuidedRun")
    story.send("StartGuidedRun")


@pytest.mark.parametrize("status", ["FINISHED", "EXPIRED", "FAILED"])
def test_ended_run_accepts_no_report(story: Story, status: str) -> None:
    report(story, status)
    assert run_status(story) == status
    with pytest.raises(GuidedRunInactive):
        report(story, "EXPIRED")
    story.send("StartGuidedRun")
    with pytest.raises(GuidedRunInactive):
        story.send("ReportGuidedRun", {"run_id": str(uuid4()), "status": "EXPIRED"})
    assert run_status(story) is GuidedRunStatus.REQUESTED


def test_request_is_due_when_the_stage_needs_a_proposal(story: Story) -> None:
    assert request_due(story)
    story.request()
    assert not request_due(story)
    story.propose()
    assert not request_due(story)
    story.send("SubmitFeedback", {"feedback": "darker"})
    assert request_due(story)
    story.request()
    story.propose()
    story.send("ConfirmStage", {"choice": 0})
    assert request_due(story)


def test_no_request_is_due_if_a_proposal_exists_or_is_pending() -> None:
    story = Story()
    story.request()
    story.send("StartGuidedRun")
    assert not request_due(story)
    story.send("StopGuidedRun")
    story.propose()
    story.send("StartGuidedRun")
    assert not request_due(story)


def test_failures_are_counted_until_the_next_proposal(story: Story) -> None:
    why = {"error_code": "MUSE_FAILED", "message": "no"}
    for count in (1, 2):
        story.send("ReportFailure", {"command_id": str(story.request()), **why})
        run = story.session.guided_run
        assert run is not None
        assert (run.failures, run.request_due) == (count, True)
    story.request()
    story.propose()
    run = story.session.guided_run
    assert run is not None
    assert run.failures == 0


def test_session_can_be_finished_before_its_run(story: Story) -> None:
    story.advance_to(STAGES[-1])
    story.request()
    story.propose()
    story.send("ConfirmStage", {"choice": 0})
    assert run_status(story) is GuidedRunStatus.REQUESTED
    with pytest.raises(SessionClosed):
        story.send("StopGuidedRun")
    report(story, "FINISHED")
    assert run_status(story) is GuidedRunStatus.FINISHED
    assert [event["event_type"].rpartition(".")[2] for event in story.events[-4:]] == [
        *("StageConfirmed", "Finished", "GuidedRunUpdated", "GuidedRunFinished")
    ]
