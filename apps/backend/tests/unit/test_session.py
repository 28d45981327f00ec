"""The commands of a session's writer: when they are allowed, and their events."""

from typing import Any
from uuid import uuid4

import pytest
from backend.genesis import (
    FEEDBACK_MAX,
    ChoiceInvalid,
    NoProposal,
    ProposalPending,
    SessionClosed,
    StageContentInvalid,
    WrongStage,
    genesis,
)
from pydantic_core import to_json
from relaybox.commands import (
    AggregateNotFound,
    Caller,
    Command,
    CommandRefused,
    DuplicateCommand,
    PayloadInvalid,
    UnknownCommand,
)
from relaybox.commands._decide import LoadedAggregate, decide
from relaybox.outbox import OutboxSettings
from relaybox_types.enums import CommandStatus, TaskStatus
from shared_types.genesis import GenesisStage, GenesisStatus

from tests.fixtures.story import STAGES, Story, content

LATER_STAGES = STAGES[1:]
CONCEPT = GenesisStage.CONCEPT_SELECTION


@pytest.fixture
def story() -> Story:
    return Story()


def names(story: Story) -> list[str]:
    return [event["event_type"].removeprefix("Genesis.Session.") for event in story.events]


def test_new_session_has_its_owner_and_the_first_stage(story: Story) -> None:
    session = story.session
    assert (session.owner, session.version) == ("writer", 1)
    assert (session.status, session.current_stage) == (GenesisStatus.IN_PROGRESS, CONCEPT)
    assert (session.confirmed_data, session.draft, session.last_result) == (None, None, None)
    assert names(story) == ["Created"]


def test_session_can_have_a_novel() -> None:
    novel_id = uuid4()
    story = Story.__new__(Story)
    story.__dict__.update(id=uuid4(), events=[], pending={}, settled={}, _state=None)
    story.send("CreateSession", {"novel_id": str(novel_id)}, creates=True)
    assert story.session.novel_id == novel_id == story.replayed().novel_id


def test_request_event_has_all_that_an_agent_needs(story: Story) -> None:
    story.advance_to(GenesisStage.WORLDVIEW)
    story.request()
    story.propose()
    story.send("SubmitFeedback", {"feedback": "darker", "rating": 2})
    command_id = story.request({"notes": "an island"})
    payload = story.events[-1]["payload"]
    assert payload["session_id"] == str(story.id)
    assert payload["command_id"] == str(command_id)
    assert payload["stage"] == "WORLDVIEW"
    assert payload["request_params"]["notes"] == "an island"
    assert list(payload["confirmed_data"]) == ["CONCEPT_SELECTION", "STORY_CONCEPTION"]
    assert payload["feedback"] == [{"feedback": "darker", "rating": 2}]


def test_preferences_are_part_of_every_later_request(story: Story) -> None:
    story.request({"theme_preferences": ["科幻"], "notes": "short"})
    story.propose()
    story.request({"notes": None})
    story.propose()
    story.advance_to(GenesisStage.CHARACTERS)
    story.request()
    params = story.events[-1]["payload"]["request_params"]
    assert (params["theme_preferences"], params["notes"]) == (["科幻"], None)


def test_notes_apply_to_one_request_only(story: Story) -> None:
    story.advance_to(GenesisStage.WORLDVIEW)
    story.request({"notes": "an island"})
    story.propose()
    story.request()
    assert story.events[-1]["payload"]["request_params"]["notes"] is None


@pytest.mark.parametrize("stage", LATER_STAGES)
def test_concepts_are_generated_in_the_first_stage_only(story: Story, stage: GenesisStage) -> None:
    story.advance_to(stage)
    with pytest.raises(WrongStage, match="RequestStageProposal"):
        story.send("RequestConceptGeneration")


def test_stage_proposals_are_for_the_later_stages(story: Story) -> None:
    with pytest.raises(WrongStage, match="RequestConceptGeneration"):
        story.send("RequestStageProposal")


@pytest.mark.parametrize("stage", STAGES)
def test_repeated_request_is_a_duplicate_of_the_pending_one(story: Story, stage: GenesisStage) -> None:
    story.advance_to(stage)
    command_id = story.request()
    with pytest.raises(DuplicateCommand) as refused:
        story.request()
    assert refused.value.duplicate_command_id == command_id


@pytest.mark.parametrize(
    ("command_type", "payload"),
    [
        ("ConfirmStage", {"choice": 0}),
        ("ConfirmStage", {"content": content(CONCEPT)}),
        ("SubmitFeedback", {"feedback": "more"}),
    ],
)
def test_commands_are_refused_while_a_request_is_pending(
    story: Story, command_type: str, payload: Any
) -> None:
    story.request()
    story.propose()
    command_id = story.request()
    with pytest.raises(ProposalPending, match=str(command_id)):
        story.send(command_type, payload)


def test_feedback_without_a_proposal_is_refused(story: Story) -> None:
    with pytest.raises(NoProposal, match="request a proposal"):
        story.send("SubmitFeedback", {"feedback": "more"})


def test_only_the_newest_feedback_is_kept(story: Story) -> None:
    story.request()
    story.propose()
    for number in range(FEEDBACK_MAX + 2):
        story.send("SubmitFeedback", {"feedback": f"remark {number}"})
    kept = [remark["feedback"] for remark in story.session.feedback]
    assert kept == [f"remark {number}" for number in range(2, FEEDBACK_MAX + 2)]


def test_largest_request_and_proposal_fit_into_one_event(story: Story) -> None:
    long = "\x01" * 1200  # six bytes a character as JSON, the maximum
    place = {"description": long}
    world = {
        **content(GenesisStage.WORLDVIEW),
        "setting": long,
        "rules": [long] * 12,
        "places": [{"name": str(number), **place} for number in range(4)],
    }
    texts = dict.fromkeys(("description", "desire", "flaw", "arc"), long)
    cast = [{"name": str(number), "role": "PROTAGONIST", **texts} for number in range(4)]
    outline = [{"number": n + 1, "act": 1, "title": "t", "summary": long} for n in range(18)]
    story.advance_to(GenesisStage.WORLDVIEW)
    story.send("ConfirmStage", {"content": world})
    story.send("ConfirmStage", {"content": {"characters": cast}})
    command_id = story.request()
    full = {"stage": "PLOT_OUTLINE", "options": [{"chapters": outline}] * 5}
    story.send("ReportProposal", {"command_id": str(command_id), "proposal": full})
    for _ in range(FEEDBACK_MAX):
        story.send("SubmitFeedback", {"feedback": "\x01" * 4000})
    story.request({"notes": "\x01" * 4000})
    assert len(to_json(story.events[-1])) > 400_000


@pytest.mark.parametrize("stage", STAGES)
def test_confirmed_content_is_the_chosen_option(story: Story, stage: GenesisStage) -> None:
    story.advance_to(stage)
    story.request()
    options = story.propose()["options"]
    story.send("ConfirmStage", {"stage": stage.value, "choice": 1})
    assert (story.session.confirmed_data or {})[stage] == options[1]


@pytest.mark.parametrize("stage", STAGES)
def test_own_content_needs_no_proposal(story: Story, stage: GenesisStage) -> None:
    story.advance_to(stage)
    story.send("ConfirmStage", {"content": content(stage, "mine")})
    assert (story.session.confirmed_data or {})[stage] == content(stage, "mine")


@pytest.mark.parametrize("stage", STAGES)
def test_invalid_own_content_is_refused(story: Story, stage: GenesisStage) -> None:
    story.advance_to(stage)
    (field, *_) = content(stage)
    with pytest.raises(StageContentInvalid) as refused:
        story.send("ConfirmStage", {"content": {**content(stage), field: ""}})
    assert refused.value.details[0]["field"] == f"payload.content.{field}"


def test_details_of_invalid_content_are_bounded(story: Story) -> None:
    with pytest.raises(StageContentInvalid) as refused:
        story.send("ConfirmStage", {"content": {"x" * 900 + str(number): 1 for number in range(32)}})
    assert len(refused.value.details) == 20
    assert max(len(detail["field"]) for detail in refused.value.details) <= 200


def test_choice_without_a_proposal_is_refused(story: Story) -> None:
    with pytest.raises(NoProposal, match="content"):
        story.send("ConfirmStage", {"choice": 0})


def test_proposal_of_an_earlier_stage_cannot_be_chosen(story: Story) -> None:
    story.request()
    story.propose()
    story.send("ConfirmStage", {"choice": 0})
    with pytest.raises(NoProposal):
        story.send("ConfirmStage", {"choice": 0})
    with pytest.raises(NoProposal):
        story.send("SubmitFeedback", {"feedback": "more"})


def test_choice_of_a_missing_option_is_refused(story: Story) -> None:
    story.request()
    story.propose()
    with pytest.raises(ChoiceInvalid, match="0 to 2"):
        story.send("ConfirmStage", {"choice": 3})


@pytest.mark.parametrize("stage", LATER_STAGES)
def test_double_click_cannot_skip_a_stage(story: Story, stage: GenesisStage) -> None:
    story.advance_to(stage)
    earlier = STAGES[STAGES.index(stage) - 1]
    with pytest.raises(WrongStage, match=stage.value):
        story.send("ConfirmStage", {"stage": earlier.value, "content": content(earlier)})
    assert story.session.current_stage is stage


def test_last_confirmation_finishes_the_session(story: Story) -> None:
    story.advance_to(GenesisStage.PLOT_OUTLINE)
    story.send("ConfirmStage", {"content": content(GenesisStage.PLOT_OUTLINE)})
    assert names(story)[-2:] == ["StageConfirmed", "Finished"]
    assert (story.session.status, story.session.current_stage) == (
        GenesisStatus.COMPLETED,
        GenesisStage.FINISHED,
    )
    assert set(story.session.confirmed_data or {}) == set(STAGES)


def test_abandoning_fails_the_pending_command_and_cancels_its_task(story: Story) -> None:
    command_id = story.request()
    story.send("AbandonSession", {"reason": "another idea"})
    assert story.events[-1]["payload"] == {
        "session_id": str(story.id),
        "status": "ABANDONED",
        "reason": "another idea",
    }
    end = story.settled[command_id]
    assert (end.command_status, end.task_status) == (CommandStatus.FAILED, TaskStatus.CANCELLED)
    assert (story.session.status, story.session.pending) == (GenesisStatus.ABANDONED, None)


def test_abandoning_an_idle_session_ends_no_command(story: Story) -> None:
    story.send("AbandonSession")
    assert not story.settled


@pytest.mark.parametrize("end", ["abandoned", "finished"])
@pytest.mark.parametrize(
    ("command_type", "payload"),
    [
        ("RequestConceptGeneration", {}),
        ("RequestStageProposal", {}),
        ("SubmitFeedback", {"feedback": "more"}),
        ("ConfirmStage", {"choice": 0}),
        ("AbandonSession", {}),
    ],
)
def test_ended_session_refuses_every_command(story: Story, end: str, command_type: str, payload: Any) -> None:
    if end == "abandoned":
        story.send("AbandonSession")
    else:
        story.advance_to(GenesisStage.FINISHED)
    with pytest.raises(SessionClosed, match="create a new session"):
        story.send(command_type, payload)


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (SessionClosed, "SESSION_CLOSED"),
        (WrongStage, "WRONG_STAGE"),
        (ProposalPending, "PROPOSAL_PENDING"),
        (NoProposal, "NO_PROPOSAL"),
        (ChoiceInvalid, "CHOICE_INVALID"),
        (StageContentInvalid, "STAGE_CONTENT_INVALID"),
    ],
)
def test_every_refusal_has_its_own_code(refusal: type[CommandRefused], code: str) -> None:
    assert refusal.error_code == code


@pytest.mark.guarantee("G81")
def test_session_of_another_writer_is_not_found(story: Story) -> None:
    command = Command(
        aggregate_id=story.id,
        command_type="NoSuchCommand",
        payload={},
        caller=Caller(actor="stranger", source_service="api-gateway"),
    )
    loaded = LoadedAggregate(owner="writer", state=story.session.model_dump_json(), pending={})
    with pytest.raises(AggregateNotFound):
        decide(genesis, command, loaded, OutboxSettings())


def test_invalid_payload_is_refused(story: Story) -> None:
    with pytest.raises(PayloadInvalid):
        story.send("RequestConceptGeneration", {"theme": ["typo"]})


def test_unknown_command_is_refused(story: Story) -> None:
    with pytest.raises(UnknownCommand):
        story.send("Dance")
