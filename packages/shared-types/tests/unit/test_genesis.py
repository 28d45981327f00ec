"""The contents of stages and the payloads of Genesis' commands."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from shared_types.genesis import (
    CONTENT_BYTES_MAX,
    STAGE_CONTENT,
    AbandonSession,
    Characters,
    Concept,
    ConfirmStage,
    Feedback,
    GenesisStage,
    PlotOutline,
    Preferences,
    Proposal,
    RequestConceptGeneration,
    RequestStageProposal,
    SubmitFeedback,
    Worldview,
)

Json = dict[str, Any]


def concept(**changes: Any) -> Json:
    return {
        "title": "雾港来信",
        "logline": "一名邮差收到十年后的信。",
        "hook": "信上写着她的死期。",
        "themes": ["悬疑", "科幻"],
        "tone": "冷峻",
        **changes,
    }


def character(**changes: Any) -> Json:
    return {
        "name": "Mara",
        "role": "PROTAGONIST",
        "description": "A postwoman.",
        "desire": "To read the last letter.",
        "flaw": "She trusts paper more than people.",
        "arc": "She learns to answer.",
        **changes,
    }


def chapter(number: int, act: int) -> Json:
    return {"number": number, "act": act, "title": f"Part {number}", "summary": "Something happens."}


def place(name: str) -> Json:
    return {"name": name, "description": "Fog."}


def worldview(**changes: Any) -> Json:
    return {
        "era": "Now",
        "setting": "A harbour.",
        "society": "Guilds.",
        "places": [place("Quay")],
        "rules": ["Letters cannot be burnt."],
        **changes,
    }


def refuses(model: type[BaseModel], data: object, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        model.model_validate(data)


def test_every_stage_except_the_last_has_a_content() -> None:
    assert set(STAGE_CONTENT) == set(GenesisStage) - {GenesisStage.FINISHED}
    assert len(set(STAGE_CONTENT.values())) == 5


def test_content_survives_a_json_round_trip() -> None:
    taken = Concept.model_validate(concept())
    assert Concept.model_validate(from_json(taken.model_dump_json())) == taken


def test_content_is_immutable() -> None:
    taken = Concept.model_validate(concept())
    with pytest.raises(ValidationError, match="frozen"):
        taken.title = "Another"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"title": "   "}, "at least 1 character"),
        ({"title": "x" * 201}, "at most 200 characters"),
        ({"logline": "x" * 1201}, "at most 1200 characters"),
        ({"themes": []}, "at least 1 item"),
        ({"themes": ["a"] * 13}, "at most 12 items"),
        ({"hook": "a\x00b"}, "NUL character"),
        ({"hook": "\ud800"}, "valid string|valid unicode"),
        ({"titel": "misspelt"}, "Extra inputs"),
        ({"tone": None}, "valid string"),
    ],
)
def test_concept_outside_its_limits_is_refused(changes: Json, reason: str) -> None:
    refuses(Concept, concept(**changes), reason)


@pytest.mark.parametrize("missing", ["title", "logline", "hook", "themes", "tone"])
def test_concept_without_a_field_is_refused(missing: str) -> None:
    data = concept()
    del data[missing]
    refuses(Concept, data, missing)


def test_blanks_around_a_text_are_removed() -> None:
    assert Concept.model_validate(concept(title="  Fog \n")).title == "Fog"


def test_content_larger_than_an_event_is_refused() -> None:
    rules = ["\x01" * 1200] * 12  # six bytes per character as JSON
    places = [{"name": f"Quay {n}", "description": "\x01" * 1200} for n in range(12)]
    refuses(Worldview, worldview(rules=rules, places=places), f"more than the {CONTENT_BYTES_MAX} allowed")


def test_places_with_equal_names_are_refused() -> None:
    refuses(Worldview, worldview(places=[place("Quay"), place("quay")]), "different names")


def test_cast_without_a_protagonist_is_refused() -> None:
    refuses(Characters, {"characters": [character(role="ALLY")]}, "PROTAGONIST")


def test_characters_with_equal_names_are_refused() -> None:
    refuses(Characters, {"characters": [character(), character(name="MARA", role="ALLY")]}, "different names")


def test_chapters_in_reading_order_are_accepted() -> None:
    outline = PlotOutline.model_validate({"chapters": [chapter(1, 1), chapter(2, 1), chapter(3, 2)]})
    assert [one.number for one in outline.chapters] == [1, 2, 3]


@pytest.mark.parametrize(
    ("numbers_and_acts", "reason"),
    [
        ([(1, 1), (2, 1)], "at least 3"),
        ([(1, 1), (3, 1), (2, 1)], "numbered 1, 2, 3"),
        ([(2, 1), (3, 1), (4, 1)], "numbered 1, 2, 3"),
        ([(1, 2), (2, 2), (3, 2)], "start at 1"),
        ([(1, 1), (2, 2), (3, 1)], "the act of the previous chapter or the next act"),
        ([(1, 1), (2, 1), (3, 3)], "the act of the previous chapter or the next act"),
        ([(1, 1), (2, 1), (3, 10)], "less than or equal to 9"),
        ([(n, 1) for n in range(1, 62)], "at most 60|less than or equal to 60"),
    ],
)
def test_chapters_out_of_order_or_limits_are_refused(
    numbers_and_acts: list[tuple[int, int]], reason: str
) -> None:
    refuses(PlotOutline, {"chapters": [chapter(*pair) for pair in numbers_and_acts]}, reason)


def test_proposal_from_json_has_the_models_of_its_stage() -> None:
    data = {"stage": "CHARACTERS", "options": [{"characters": [character()]}]}
    assert isinstance(Proposal.model_validate(data).options[0], Characters)


@pytest.mark.parametrize(
    ("stage", "options", "reason"),
    [
        ("CONCEPT_SELECTION", [concept()] * 2, "a proposal must have 3 concepts, not 2"),
        ("CONCEPT_SELECTION", [worldview()] * 3, "must be a Concept"),
        ("WORLDVIEW", [], "at least 1 item"),
        ("WORLDVIEW", [worldview()] * 6, "at most 5 items"),
        ("FINISHED", [worldview()], "has no content to propose"),
    ],
)
def test_proposal_with_options_of_another_stage_is_refused(
    stage: str, options: list[Json], reason: str
) -> None:
    refuses(Proposal, {"stage": stage, "options": options}, reason)


def test_request_for_concepts_may_be_empty() -> None:
    assert RequestConceptGeneration.model_validate({}) == RequestConceptGeneration()


def test_concept_request_accepts_the_contracts_example() -> None:
    payload = {"theme_preferences": ["科幻", "悬疑"], "style_preferences": ["快节奏", "第一人称"]}
    request = RequestConceptGeneration.model_validate(payload)
    assert request.theme_preferences == ("科幻", "悬疑")
    assert isinstance(request, Preferences)


@pytest.mark.parametrize("language", ["en", "zh", "zh-Hans", "pt-BR"])
def test_language_tag_is_accepted(language: str) -> None:
    assert Preferences(language=language).language == language


@pytest.mark.parametrize("language", ["", "中文", "english", "en_US", "en\x00", "en\n"])
def test_invalid_language_tag_is_refused(language: str) -> None:
    refuses(Preferences, {"language": language}, "language")


@pytest.mark.parametrize("rating", [0, 6, 4.0, "4", True, 2**63])
def test_rating_is_an_integer_from_one_to_five(rating: object) -> None:
    refuses(SubmitFeedback, {"feedback": "Darker", "rating": rating}, "rating")


@pytest.mark.parametrize("feedback", ["", " \n ", "x" * 4001, "a\x00", None, 7])
def test_feedback_is_a_text_of_limited_length(feedback: object) -> None:
    refuses(SubmitFeedback, {"feedback": feedback}, "feedback")


def test_submitted_feedback_follows_the_rules_of_feedback() -> None:
    assert isinstance(SubmitFeedback(feedback="更黑暗一些", rating=5), Feedback)


@pytest.mark.parametrize(
    "payload",
    [
        {"choice": 0},
        {"choice": 4, "stage": "WORLDVIEW"},
        {"content": concept(), "stage": "CONCEPT_SELECTION"},
    ],
)
def test_stage_is_confirmed_by_choice_or_by_content(payload: Json) -> None:
    ConfirmStage.model_validate(payload)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({}, "exactly one"),
        ({"choice": 0, "content": concept()}, "exactly one"),
        ({"choice": -1}, "greater than or equal"),
        ({"choice": 5}, "less than 5"),
        ({"choice": True}, "valid integer"),
        ({"choice": 1.0}, "valid integer"),
        ({"content": []}, "valid dict"),
        ({"content": {str(n): n for n in range(33)}}, "at most 32 items"),
        ({"choice": 0, "stage": "EPILOGUE"}, "stage"),
        ({"choice": 0, "confirmed": True}, "Extra inputs"),
    ],
)
def test_confirmation_with_both_or_neither_is_refused(payload: Json, reason: str) -> None:
    refuses(ConfirmStage, payload, reason)


@pytest.mark.parametrize("model", [RequestStageProposal, AbandonSession])
def test_empty_payload_is_valid_if_all_fields_have_defaults(model: Callable[[], BaseModel]) -> None:
    assert model().model_dump(exclude_none=True) == {}


@pytest.mark.parametrize("model", [RequestConceptGeneration, RequestStageProposal, AbandonSession])
def test_undeclared_field_is_refused(model: type[BaseModel]) -> None:
    refuses(model, {"surprise": 1}, "Extra inputs")


def test_json_schema_contains_the_limits() -> None:
    title = Concept.model_json_schema()["properties"]["title"]
    assert title == {
        "maxLength": 200,
        "minLength": 1,
        "pattern": r"^[^\u0000]*\S[^\u0000]*$",
        "title": "Title",
        "type": "string",
    }
