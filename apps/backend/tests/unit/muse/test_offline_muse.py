"""The offline muse: the writer's language, the same for the same brief, each stage built on those before."""

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
    """A listener who does not care."""


async def propose(stage: GenesisStage = GenesisStage.CONCEPT_SELECTION, **rest: Any) -> Proposal:
    return await OfflineMuse().propose(Brief(stage=stage, **{"seed": "one", **rest}), ignore)


async def whole_story(choice: int = 0, **rest: Any) -> dict[GenesisStage, Proposal]:
    """A proposal for every stage, each on top of the confirmed ones before."""
    proposals: dict[GenesisStage, Proposal] = {}
    confirmed: dict[GenesisStage, AnyContent] = {}
    for stage in STAGES:
        proposals[stage] = await propose(stage, confirmed=dict(confirmed), **rest)
        confirmed[stage] = proposals[stage].options[choice]
    return proposals


def text_of(model: BaseModel) -> str:
    return model.model_dump_json()


def prose_of(model: BaseModel) -> str:
    """The text without what the models themselves spell in English: fields, stages and roles."""
    words = "|".join((*STAGES, *CharacterRole))
    return re.sub(rf'"[a-z_]+":|{words}', "", text_of(model))


@pytest.mark.parametrize("seed", [str(n) for n in range(5)])
async def test_chinese_in_chinese_out_in_every_stage(seed: str) -> None:
    for proposal in (await whole_story(preferences=CHINESE, seed=seed)).values():
        assert re.findall("[A-Za-z]{2,}", prose_of(proposal)) == []
        assert len(HAN.findall(text_of(proposal))) > 100


@pytest.mark.parametrize("seed", [str(n) for n in range(5)])
async def test_english_in_english_out_in_every_stage(seed: str) -> None:
    for proposal in (await whole_story(preferences=ENGLISH, seed=seed)).values():
        assert HAN.search(text_of(proposal)) is None


async def test_nobody_said_a_word_so_it_is_english() -> None:
    assert HAN.search(text_of(await propose())) is None


async def test_the_language_asked_for_beats_the_language_used() -> None:
    preferences = Preferences(theme_preferences=("mystery",), language="zh-Hans")
    assert HAN.search(text_of((await propose(preferences=preferences)).options[0])) is not None


async def test_without_preferences_the_confirmed_data_decide_the_language() -> None:
    concept = (await propose(preferences=CHINESE)).options[0]
    confirmed = {GenesisStage.CONCEPT_SELECTION: concept}
    proposal = await propose(GenesisStage.STORY_CONCEPTION, confirmed=confirmed)
    assert re.findall("[A-Za-z]{2,}", prose_of(proposal)) == []


async def test_a_note_does_not_change_the_language_of_a_story_that_has_begun() -> None:
    concept = (await propose(preferences=ENGLISH)).options[0]
    confirmed = {GenesisStage.CONCEPT_SELECTION: concept}
    note = Preferences(notes="好")
    proposal = await propose(GenesisStage.STORY_CONCEPTION, confirmed=confirmed, preferences=note)
    assert HAN.search(text_of(proposal)) is None


async def test_feedback_alone_decides_the_language_too() -> None:
    proposal = await propose(feedback=(Feedback(feedback="再来一次"),))
    assert re.findall("[A-Za-z]{2,}", prose_of(proposal)) == []


@pytest.mark.parametrize("stage", STAGES)
async def test_the_same_brief_gives_the_same_proposal(stage: GenesisStage) -> None:
    first = await whole_story(preferences=ENGLISH)
    second = await whole_story(preferences=ENGLISH)
    assert text_of(first[stage]) == text_of(second[stage])


async def test_the_order_in_which_stages_are_handed_over_does_not_matter() -> None:
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
async def test_another_brief_gives_another_proposal(change: Mapping[str, Any]) -> None:
    before = {"preferences": ENGLISH}
    assert (await propose(**before)).options != (await propose(**{**before, **change})).options


async def test_twenty_seeds_give_many_stories() -> None:
    titles: set[str] = set()
    for number in range(20):
        proposal = await propose(seed=str(number))
        titles |= {option.title for option in proposal.options if isinstance(option, Concept)}
    assert len(titles) > 30


@pytest.mark.parametrize("preferences", [CHINESE, ENGLISH, Preferences()])
async def test_three_concepts_differ_in_all_that_matters(preferences: Preferences) -> None:
    options = (await propose(preferences=preferences)).options
    concepts = [option for option in options if isinstance(option, Concept)]
    for field in ("title", "logline", "hook", "themes"):
        assert len({getattr(concept, field) for concept in concepts}) == 3, field


async def test_the_writers_themes_and_styles_are_in_every_concept() -> None:
    for concept in (await propose(preferences=CHINESE)).options:
        assert isinstance(concept, Concept)
        assert set(CHINESE.theme_preferences) < set(concept.themes)
        assert all(style in concept.tone for style in CHINESE.style_preferences)


async def test_a_theme_the_muse_has_never_heard_of_still_runs_through_the_concepts() -> None:
    proposal = await propose(preferences=Preferences(theme_preferences=("beekeeping",)))
    assert all(isinstance(one, Concept) and "beekeeping" in one.hook for one in proposal.options)


@pytest.mark.parametrize(
    ("theme", "place"),
    [("武侠", "断云渡"), ("历史", "永宁坊"), ("fantasy", "Vellamar"), ("western", "Cutler's Pass")],
)
async def test_a_genre_decides_the_world(theme: str, place: str) -> None:
    proposal = await propose(preferences=Preferences(theme_preferences=(theme,)))
    assert all(isinstance(one, Concept) and place in one.logline for one in proposal.options)


async def test_a_world_turned_down_in_feedback_does_not_come_back() -> None:
    for number in range(10):
        proposal = await propose(seed=str(number), feedback=(Feedback(feedback="No fantasy, please."),))
        assert "Vellamar" not in text_of(proposal)


@pytest.mark.parametrize("preferences", [CHINESE, ENGLISH])
@pytest.mark.parametrize("seed", [str(n) for n in range(5)])
@pytest.mark.parametrize("choice", [0, 1])
async def test_what_was_confirmed_is_carried_through_to_the_last_chapter(
    preferences: Preferences, seed: str, choice: int
) -> None:
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
async def test_the_two_options_of_a_later_stage_differ(seed: str) -> None:
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


async def test_a_premise_begins_with_the_writers_own_concept() -> None:
    proposal = await propose(GenesisStage.STORY_CONCEPTION, confirmed=OWN)
    logline = OWN[GenesisStage.CONCEPT_SELECTION].model_dump()["logline"]
    for option in proposal.options:
        assert isinstance(option, StoryConception)
        assert option.premise.startswith(logline + ". ")


async def test_a_writers_own_hero_gets_no_name_from_the_muse() -> None:
    confirmed = {GenesisStage.CONCEPT_SELECTION: OWN[GenesisStage.CONCEPT_SELECTION]}
    proposal = await propose(GenesisStage.STORY_CONCEPTION, confirmed=confirmed)
    assert "It begins when the protagonist" in text_of(proposal)


async def test_a_hero_who_gets_a_name_has_it_in_every_sentence_of_the_outline() -> None:
    confirmed = {GenesisStage.CONCEPT_SELECTION: OWN[GenesisStage.CONCEPT_SELECTION]}
    for stage in STAGES[1:]:
        confirmed[stage] = (await propose(stage, confirmed=dict(confirmed))).options[0]
    assert "protagonist" in text_of(confirmed[GenesisStage.STORY_CONCEPTION])
    assert "protagonist" not in text_of(confirmed[GenesisStage.PLOT_OUTLINE]).lower()


@pytest.mark.parametrize("seed", [str(n) for n in range(5)])
async def test_people_live_in_the_writers_own_world_not_in_one_of_the_muses(seed: str) -> None:
    told = text_of(await propose(GenesisStage.CHARACTERS, confirmed=OWN, seed=seed))
    assert "Scriptorium" in told
    assert [world.name for world in Bank.load("en").worlds if world.name in told] == []


async def test_an_outline_stands_on_the_writers_own_world_and_cast() -> None:
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
async def test_a_stage_without_the_ones_before_it_is_not_proposed(stage: GenesisStage) -> None:
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
async def test_a_wish_in_the_feedback_shows_in_the_story_and_in_the_remark(
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
async def test_what_the_writer_wants_less_of_is_not_given(feedback: str) -> None:
    proposal = await propose(preferences=CHINESE, feedback=(Feedback(feedback=feedback),))
    assert "比初看时更暗" not in text_of(proposal)
    assert "darker than it first seems" not in text_of(proposal)


@pytest.mark.parametrize("seed", [str(n) for n in range(5)])
async def test_a_wish_is_not_answered_with_the_same_sentence_twice(seed: str) -> None:
    story = await whole_story(preferences=Preferences(notes="Please: a twist!"), seed=seed)
    contents = [story[stage].options[0] for stage in STAGES[:4]]
    for phrase in ("the one thing everyone took for granted", "who has been telling all this"):
        assert sum(phrase in text_of(content) for content in contents) == 1


async def test_progress_rises_to_a_hundred_percent() -> None:
    seen: list[float] = []

    async def note(percent: float) -> None:
        seen.append(percent)

    await OfflineMuse().propose(Brief(stage=GenesisStage.CONCEPT_SELECTION, seed="one"), note)
    assert seen == sorted(set(seen))
    assert len(seen) >= 4
    assert seen[-1] == 100.0


@pytest.mark.parametrize("letter", ["长", "w"])
@pytest.mark.parametrize("gap", ["", " "])
async def test_the_longest_texts_a_writer_may_send_still_lead_to_a_proposal(letter: str, gap: str) -> None:
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
    """Every text as long as the models allow, by trial."""
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
