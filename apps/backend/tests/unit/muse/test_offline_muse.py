"""The offline muse: it uses the writer's language, is deterministic, and builds on earlier stages."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
from backend.genesis.muse import Brief, MuseBriefIncomplete, OfflineMuse
from backend.genesis.muse._phrases import Bank
from pydantic import BaseModel
from shared_types.genesis import (
    STAGE_CONTENT,
    AnyContent,
    CharacterRole,
    Characters,
    Concept,
    Feedback,
    GenesisStage,
    Place,
    PlotOutline,
    Preferences,
    Proposal,
    StoryConception,
    Worldview,
)

HAN = re.compile(r"[\u4e00-\u9fff]")
STAGES = tuple(STAGE_CONTENT)
CHINESE = Preferences(theme_preferences=("科幻", "悬疑"), style_preferences=("快节奏", "第一人称"))
ENGLISH = Preferences(theme_preferences=("mystery", "AI ethics"), style_preferences=("first person",))


async def ignore(percent: float) -> None:
    """Ignore progress."""


async def propose(stage: GenesisStage = GenesisStage.CONCEPT_SELECTION, **rest: Any) -> Proposal:
    return await OfflineMuse().propose(Brief(stage=stage, **{"seed": "one", **rest}), ignore)


async def whole_story(choice: int = 0, **rest: Any) -> dict[GenesisStage, Proposal]:
    """Propose every stage, each based on the confirmed ones before."""
    proposals: dict[GenesisStage, Proposal] = {}
    confirmed: dict[GenesisStage, AnyContent] = {}
    for stage in STAGES:
        proposals[stage] = await propose(stage, confirmed=dict(confirmed), **rest)
        confirmed[stage] = proposals[stage].options[choice]
    return proposals


def text_of(model: BaseModel) -> str:
    return model.model_dump_json()


def prose_of(model: BaseModel) -> str:
    """Return the text without the English words of the models: fields, stages and roles."""
    words = "|".join((*STAGES, *CharacterRole))
    return re.sub(rf'"[a-z_]+":|{words}', "", text_of(model))


@pytest.mark.parametrize("seed", [str(n) for n in range(5)])
async def test_chinese_preferences_give_chinese_proposals(seed: str) -> None:
    for proposal in (await whole_story(preferences=CHINESE, seed=seed)).values():
        assert re.findall("[A-Za-z]{2,}", prose_of(proposal)) == []
        assert len(HAN.findall(text_of(proposal))) > 100


@pytest.mark.parametrize("seed", [str(n) for n in range(5)])
async def test_english_preferences_give_english_proposals(seed: str) -> None:
    for proposal in (await whole_story(preferences=ENGLISH, seed=seed)).values():
        assert HAN.search(text_of(proposal)) is None


async def test_language_without_any_text_is_english() -> None:
    assert HAN.search(text_of(await propose())) is None


async def test_preferred_language_overrides_that_of_the_texts() -> None:
    preferences = Preferences(theme_preferences=("mystery",), language="zh-Hans")
    assert HAN.search(text_of((await propose(preferences=preferences)).options[0])) is not None


async def test_language_follows_confirmed_contents() -> None:
    concept = (await propose(preferences=CHINESE)).options[0]
    confirmed = {GenesisStage.CONCEPT_SELECTION: concept}
    proposal = await propose(GenesisStage.STORY_CONCEPTION, confirmed=confirmed)
    assert re.findall("[A-Za-z]{2,}", prose_of(proposal)) == []


async def test_note_does_not_change_the_language_of_a_story() -> None:
    concept = (await propose(preferences=ENGLISH)).options[0]
    confirmed = {GenesisStage.CONCEPT_SELECTION: concept}
    note = Preferences(notes="好")
    proposal = await propose(GenesisStage.STORY_CONCEPTION, confirmed=confirmed, preferences=note)
    assert HAN.search(text_of(proposal)) is None


async def test_language_follows_feedback_if_there_is_no_other_text() -> None:
    proposal = await propose(feedback=(Feedback(feedback="再来一次"),))
    assert re.findall("[A-Za-z]{2,}", prose_of(proposal)) == []


@pytest.mark.parametrize("stage", STAGES)
async def test_same_brief_gives_the_same_proposal(stage: GenesisStage) -> None:
    first = await whole_story(preferences=ENGLISH)
    second = await whole_story(preferences=ENGLISH)
    assert text_of(first[stage]) == text_of(second[stage])


async def test_order_of_confirmed_stages_does_not_matter() -> None:
    story = await whole_story(preferences=ENGLISH)
    confirmed = {stage: story[stage].options[0] for stage in STAGES[:-1]}
    turned = dict(reversed(confirmed.items()))
    told = [await propose(GenesisStage.PLOT_OUTLINE, confirmed=one) for one in (confirmed, turned)]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "two"},
        {"preferences": CHINESE},
        {"feedback": (Feedback(feedback="Something else"),)},
        {"feedback": (Feedback(feedback="Something else", rating=1),)},
    ],
)
async def test_different_briefs_give_different_proposals(change: Mapping[str, Any]) -> None:
    before = {"preferences": ENGLISH}
    assert (await propose(**before)).options != (await propose(**{**before, **change})).options


async def test_twenty_seeds_give_many_stories() -> None:
    titles: set[str] = set()
    for number in range(20):
        proposal = await propose(seed=str(number))
        titles |= {option.title for option in proposal.options if isinstance(option, Concept)}
    assert len(titles) > 30


@pytest.mark.parametrize("preferences", [CHINESE, ENGLISH, Preferences()])
async def test_three_concepts_differ_in_hero_and_theme(preferences: Preferences) -> None:
    options = (await propose(preferences=preferences)).options
    concepts = [option for option in options if isinstance(option, Concept)]
    for field in ("title", "logline", "hook", "themes"):
        assert len({getattr(concept, field) for concept in concepts}) == 3, field


async def test_every_concept_contains_the_writers_themes_and_styles() -> None:
    for concept in (await propose(preferences=CHINESE)).options:
        assert isinstance(concept, Concept)
        assert set(CHINESE.theme_preferences) < set(concept.themes)
        assert all(style in concept.tone for style in CHINESE.style_preferences)


async def test_unknown_theme_is_in_every_concept() -> None:
    proposal = await propose(preferences=Preferences(theme_preferences=("beekeeping",)))
    assert all(isinstance(one, Concept) and "beekeeping" in one.hook for one in proposal.options)


@pytest.mark.parametrize(
    ("theme", "place"),
    [("武侠", "断云渡"), ("历史", "永宁坊"), ("fantasy", "Vellamar"), ("western", "Cutler's Pass")],
)
async def test_genre_determines_the_world(theme: str, place: str) -> None:
    proposal = await propose(preferences=Preferences(theme_preferences=(theme,)))
    assert all(isinstance(one, Concept) and place in one.logline for one in proposal.options)


async def test_world_rejected_in_feedback_is_not_proposed_again() -> None:
    for number in range(10):
        proposal = await propose(seed=str(number), feedback=(Feedback(feedback="No fantasy, please."),))
        assert "Vellamar" not in text_of(proposal)


@pytest.mark.parametrize("preferences", [CHINESE, ENGLISH])
@pytest.mark.parametrize("seed", [str(n) for n in range(5)])
@pytest.mark.parametrize("choice", [0, 1])
async def test_outline_uses_all_confirmed_contents(preferences: Preferences, seed: str, choice: int) -> None:
    story = await whole_story(choice, preferences=preferences, seed=seed)
    concept, conception, world, cast, outline = (story[stage].options[choice] for stage in STAGES)
    assert isinstance(concept, Concept)
    assert isinstance(conception, StoryConception)
    assert isinstance(world, Worldview)
    assert isinstance(cast, Characters)
    assert isinstance(outline, PlotOutline)
    hero = next(one for one in cast.characters if one.role is CharacterRole.PROTAGONIST)
    rival = next(one for one in cast.characters if one.role is CharacterRole.ANTAGONIST)
    assert concept.logline in conception.premise
    assert hero.name in concept.logline
    assert hero.name in conception.premise
    assert rival.name in conception.conflict + conception.ending
    assert world.places[0].name in hero.description
    told = text_of(outline)
    assert all(one.name in told for one in cast.characters)
    assert all(place.name in told for place in world.places)
    assert conception.ending in outline.chapters[-1].summary
    assert world.rules[-1] in told


@pytest.mark.parametrize("seed", [str(n) for n in range(5)])
async def test_two_options_of_a_later_stage_differ(seed: str) -> None:
    story = await whole_story(preferences=ENGLISH, seed=seed)
    for stage in STAGES[1:]:
        first, second = (option.model_dump() for option in story[stage].options)
        assert first != second, stage
    worlds = [option.model_dump() for option in story[GenesisStage.WORLDVIEW].options]
    assert all(worlds[0][part] != worlds[1][part] for part in ("society", "places", "rules"))


OWN = {
    GenesisStage.CONCEPT_SELECTION: Concept(
        title="The Copyist",
        logline="A monk copies the last book, but each page he copies fades from the original",
        hook="What if saving it destroys it?",
        themes=("faith",),
        tone="austere",
    ),
    GenesisStage.STORY_CONCEPTION: StoryConception(
        premise="To save is to destroy.",
        conflict="Brother Anselm wants to finish; the abbot wants to forget.",
        stakes="The last book.",
        ending="He copies the last page by heart.",
        perspective="Close third person.",
    ),
    GenesisStage.WORLDVIEW: Worldview(
        era="1099",
        setting="An island.",
        society="Monks.",
        places=(Place(name="Scriptorium", description="Cold."),),
        rules=("Silence after vespers",),
    ),
    GenesisStage.CHARACTERS: Characters.model_validate(
        {
            "characters": [
                {
                    "name": "Brother Malachy",
                    "role": "PROTAGONIST",
                    "description": "A monk.",
                    "desire": "To finish.",
                    "flaw": "Pride.",
                    "arc": "He stops.",
                }
            ]
        }
    ),
}


async def test_premise_begins_with_the_writers_own_concept() -> None:
    proposal = await propose(GenesisStage.STORY_CONCEPTION, confirmed=OWN)
    logline = OWN[GenesisStage.CONCEPT_SELECTION].model_dump()["logline"]
    for option in proposal.options:
        assert isinstance(option, StoryConception)
        assert option.premise.startswith(logline + ". ")


async def test_own_hero_gets_no_name_from_the_phrase_bank() -> None:
    confirmed = {GenesisStage.CONCEPT_SELECTION: OWN[GenesisStage.CONCEPT_SELECTION]}
    proposal = await propose(GenesisStage.STORY_CONCEPTION, confirmed=confirmed)
    assert "It begins when the protagonist" in text_of(proposal)


async def test_outline_uses_the_name_of_the_hero_everywhere() -> None:
    confirmed = {GenesisStage.CONCEPT_SELECTION: OWN[GenesisStage.CONCEPT_SELECTION]}
    for stage in STAGES[1:]:
        confirmed[stage] = (await propose(stage, confirmed=dict(confirmed))).options[0]
    assert "protagonist" in text_of(confirmed[GenesisStage.STORY_CONCEPTION])
    assert "protagonist" not in text_of(confirmed[GenesisStage.PLOT_OUTLINE]).lower()


@pytest.mark.parametrize("seed", [str(n) for n in range(5)])
async def test_characters_live_in_the_writers_own_world(seed: str) -> None:
    told = text_of(await propose(GenesisStage.CHARACTERS, confirmed=OWN, seed=seed))
    assert "Scriptorium" in told
    assert [world.name for world in Bank.load("en").worlds if world.name in told] == []


async def test_outline_uses_the_writers_own_world_and_cast() -> None:
    told = text_of(await propose(GenesisStage.PLOT_OUTLINE, confirmed=OWN))
    for own in (
        "Brother Malachy",
        "Scriptorium",
        "Silence after vespers.",
        "He copies the last page by heart.",
    ):
        assert own in told
    heroes = [hero for world in Bank.load("en").worlds for hero in world.heroes]
    assert [hero.object for hero in heroes if hero.object in told] == []


@pytest.mark.parametrize("stage", STAGES[1:])
async def test_proposal_without_earlier_stages_is_refused(stage: GenesisStage) -> None:
    with pytest.raises(MuseBriefIncomplete, match="confirm that stage first"):
        await propose(stage)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("feedback", "phrases"),
    [
        ("Too predictable.", ("the one thing everyone took for granted", "who has been telling all this")),
        ("Please make it less gloomy!", ("left a light on", "Kindness turns up")),
        ("I miss a romance", ("two people begin to wait", "neither of the two will say")),
        ("多一点反转", ("恰恰是被安排好的", "走到一半才看清")),
        ("不要太黑暗", ("总有人留着一盏灯", "善意在谁也没有预备的地方")),
    ],
)
async def test_style_request_changes_the_story_and_the_remark(
    stage: GenesisStage, feedback: str, phrases: tuple[str, str]
) -> None:
    preferences = CHINESE if HAN.search(feedback) else ENGLISH
    before = await whole_story(preferences=preferences)
    confirmed = {earlier: before[earlier].options[0] for earlier in STAGES[: STAGES.index(stage)]}
    brief = {"preferences": preferences, "confirmed": confirmed}
    proposal = await propose(stage, feedback=(Feedback(feedback=feedback),), **brief)
    assert feedback in (proposal.remark or "")
    assert all(any(one in text_of(option) for one in phrases) for option in proposal.options)
    assert not any(one in text_of(before[stage]) for one in phrases)


@pytest.mark.parametrize("feedback", ["Not too dark please.", "I don't want it darker", "别太黑暗"])
async def test_negated_style_request_is_not_fulfilled(feedback: str) -> None:
    proposal = await propose(preferences=CHINESE, feedback=(Feedback(feedback=feedback),))
    assert "比初看时更暗" not in text_of(proposal)
    assert "darker than it first seems" not in text_of(proposal)


@pytest.mark.parametrize("seed", [str(n) for n in range(5)])
async def test_style_request_never_repeats_a_sentence(seed: str) -> None:
    story = await whole_story(preferences=Preferences(notes="Please: a twist!"), seed=seed)
    contents = [story[stage].options[0] for stage in STAGES[:4]]
    for phrase in ("the one thing everyone took for granted", "who has been telling all this"):
        assert sum(phrase in text_of(content) for content in contents) == 1


async def test_progress_increases_to_100_percent() -> None:
    seen: list[float] = []

    async def note(percent: float) -> None:
        seen.append(percent)

    await OfflineMuse().propose(Brief(stage=GenesisStage.CONCEPT_SELECTION, seed="one"), note)
    assert seen == sorted(set(seen))
    assert len(seen) >= 4
    assert seen[-1] == 100.0


@pytest.mark.parametrize("letter", ["长", "w"])
@pytest.mark.parametrize("gap", ["", " "])
async def test_longest_allowed_texts_give_a_proposal(letter: str, gap: str) -> None:
    def filled(length: int) -> str:
        return ((letter * 7 + gap) * length)[:length].strip()

    preferences = Preferences(
        theme_preferences=tuple(f"{n}{filled(58)}" for n in range(12)),
        style_preferences=(filled(60),) * 12,
        notes=filled(4000),
    )
    longest = {
        stage: model.model_validate(_stretched(OWN[stage].model_dump(mode="json"), filled))
        for stage, model in STAGE_CONTENT.items()
        if stage in OWN
    }
    for stage in STAGES:
        await propose(
            stage, preferences=preferences, confirmed=longest, feedback=(Feedback(feedback=filled(4000)),) * 8
        )


def _stretched(document: Any, filled: Any) -> Any:
    """Return a brief whose texts are as long as the models allow."""
    match document:
        case {"role": str(role), **rest}:
            return {"role": role, **_stretched(rest, filled)}
        case dict():
            short, line = {"name", "themes"}, {"title", "tone", "era", "perspective"}
            return {
                key: filled(60 if key in short else 200 if key in line else 1200)
                if isinstance(value, str)
                else [filled(60)]
                if key == "themes"
                else _stretched(value, filled)
                for key, value in document.items()
            }
        case list():
            return [filled(1200) if isinstance(one, str) else _stretched(one, filled) for one in document]
        case _:
            return document
