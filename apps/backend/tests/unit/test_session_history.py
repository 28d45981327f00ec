"""Folding the events of any session gives the same session."""

from typing import Any
from uuid import uuid4

import pytest
from backend.genesis import GenesisSession, genesis
from backend.genesis import _events as declared
from backend.genesis._state import TRANSITIONS
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from relaybox.commands import CommandError, Event, EventType
from shared_types.genesis import GenesisStage, GenesisStatus

from tests.fixtures.story import STAGES, Story, content, proposal

stages = st.sampled_from(STAGES)
remarks = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=9)


def test_declared_events_and_transitions_correspond() -> None:
    events = {one.name for one in vars(declared).values() if isinstance(one, EventType)}
    assert events == set(TRANSITIONS)


def test_undeclared_event_is_an_error() -> None:
    session = GenesisSession(id=uuid4(), owner="writer")
    with pytest.raises(ValueError, match="not an event of a genesis session"):
        session.apply(Event(type="Genesis.Session.Deleted", event_version=1, payload={}))


def test_session_of_version_1_is_folded_like_one_of_version_2() -> None:
    story = Story()
    created, *rest = story.events
    assert (rest, created["event_version"], created["payload"]["current_stage"]) == (
        [],
        2,
        "CONCEPT_SELECTION",
    )
    old = {name: value for name, value in created["payload"].items() if name != "current_stage"}
    event = Event(type=created["event_type"], event_version=1, payload=old)
    session = GenesisSession(id=story.id, owner="").apply(genesis.event_types.upcast_decided(event))
    assert session.model_copy(update={"version": 1}) == story.session


def test_every_event_names_its_session() -> None:
    story = Story()
    for stage in STAGES:
        story.request()
        story.propose()
        story.send("SubmitFeedback", {"feedback": "more"})
        story.send("ConfirmStage", {"stage": stage.value, "choice": 0})
    assert {event["payload"]["session_id"] for event in story.events} == {str(story.id)}
    assert [event["version"] for event in story.events] == list(range(1, len(story.events) + 1))
    assert story.events[-1]["event_type"] == f"{genesis.name}.Finished"


class AnyHistory(RuleBasedStateMachine):
    """Sends any command in any order; a refusal changes nothing, and folding all events gives the state."""

    def __init__(self) -> None:
        super().__init__()
        self.story = Story()
        self.asked = [uuid4()]

    def _try(self, command_type: str, payload: dict[str, Any]) -> None:
        before = (self.story.session, len(self.story.events))
        try:
            command_id = self.story.send(command_type, payload)
        except CommandError:
            assert (self.story.session, len(self.story.events)) == before
        else:
            assert self.story.session.version > before[0].version
            if command_type.startswith("Request"):
                self.asked.append(command_id)

    @rule(notes=st.none() | remarks, themes=st.lists(remarks, max_size=3))
    def ask_for_concepts(self, notes: str | None, themes: list[str]) -> None:
        self._try("RequestConceptGeneration", {"notes": notes, "theme_preferences": themes})

    @rule(notes=st.none() | remarks)
    def ask_for_a_stage(self, notes: str | None) -> None:
        self._try("RequestStageProposal", {"notes": notes})

    @rule(remark=remarks, rating=st.none() | st.integers(0, 6))
    def remark(self, remark: str, rating: int | None) -> None:
        self._try("SubmitFeedback", {"feedback": remark, "rating": rating})

    @rule(choice=st.integers(0, 5), stage=st.none() | stages)
    def choose(self, choice: int, stage: GenesisStage | None) -> None:
        self._try("ConfirmStage", {"choice": choice, "stage": stage})

    @rule(stage=st.none() | stages, mark=remarks)
    def write_oneself(self, stage: GenesisStage | None, mark: str) -> None:
        current = self.story.session.current_stage
        if current is not GenesisStage.FINISHED:
            self._try("ConfirmStage", {"content": content(stage or current, mark), "stage": stage})

    @rule(data=st.data(), options=st.integers(1, 3))
    def propose(self, data: st.DataObject, options: int) -> None:
        command_id = data.draw(st.sampled_from(self.asked[-2:]))
        current = self.story.session.current_stage
        if current is not GenesisStage.FINISHED:
            made = proposal(current, options)
            self._try("ReportProposal", {"command_id": str(command_id), "proposal": made})

    @rule(data=st.data(), message=remarks)
    def fail(self, data: st.DataObject, message: str) -> None:
        command_id = data.draw(st.sampled_from(self.asked[-2:]))
        why = {"error_code": "MUSE_FAILED", "message": message}
        self._try("ReportFailure", {"command_id": str(command_id), **why})

    @rule(command_type=st.sampled_from(["StartGuidedRun", "StopGuidedRun"]))
    def guide(self, command_type: str) -> None:
        self._try(command_type, {})

    @rule(status=st.sampled_from(["RUNNING", "FINISHED", "EXPIRED", "FAILED"]))
    def report_run(self, status: str) -> None:
        run = self.story.session.guided_run
        run_id = run.run_id if run else uuid4()
        self._try("ReportGuidedRun", {"run_id": str(run_id), "status": status})

    @rule(sure=st.integers(0, 9))
    def abandon(self, sure: int) -> None:
        if sure == 0:
            self._try("AbandonSession", {})

    @invariant()
    def the_past_makes_the_present(self) -> None:
        assert self.story.replayed() == self.story.session

    @invariant()
    def what_is_pending_is_one_and_the_same_everywhere(self) -> None:
        waiting = self.story.session.pending
        expected = [str(waiting.command_id)] if waiting else []
        assert list(self.story.pending.values()) == expected

    @invariant()
    def it_is_completed_exactly_when_it_is_finished(self) -> None:
        session = self.story.session
        session.check()
        assert (session.status is GenesisStatus.COMPLETED) == (session.current_stage is GenesisStage.FINISHED)


AnyHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyHistory = AnyHistory.TestCase
