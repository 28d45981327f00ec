"""The phrase bank: every language has the same structure, and every phrase has valid slots."""

import string

import pytest
from backend.genesis.muse._language import Language
from backend.genesis.muse._phrases import Bank, Motif, World
from shared_types.genesis import Character, CharacterRole

LANGUAGES: tuple[Language, ...] = ("en", "zh")
STORY = {"hero", "object", "role", "where", "world", "thing", "force"}
PLOT = {
    *("title", "hero", "hero_flaw", "hero_desire", "antagonist", "ally", "mentor", "rule", "object"),
    *("question", "stakes", "conflict", "ending", "place_a", "place_b", "place_c"),
}

languages = pytest.mark.parametrize("language", LANGUAGES)


def slots_in(frame: str) -> set[str]:
    return {slot for _, slot, _, _ in string.Formatter().parse(frame) if slot is not None}


@languages
def test_every_stage_has_a_remark_and_every_plot_nine_chapters(language: Language) -> None:
    bank = Bank.load(language)
    assert len(bank.remarks.stages) == 5
    assert [beat.act for beat in bank.beats] == [1, 1, 1, 2, 2, 2, 3, 3, 3]


@languages
def test_phrases_use_known_slots_only(language: Language) -> None:
    bank = Bank.load(language)
    for motif in bank.motifs:
        for frame in (motif.discovery, motif.pressure, motif.premise, motif.conflict, *motif.endings):
            assert slots_in(frame) <= STORY - {"thing", "role"}, frame
        assert slots_in(motif.discovery + motif.pressure) <= {"hero", "object"}, motif.theme
        assert all(slots_in(title) == {"thing"} for title in motif.titles), motif.theme
        assert slots_in(motif.question + motif.rule + motif.arc) == set(), motif.theme
    for companion in (*bank.allies, *bank.mentors):
        assert slots_in(companion.description) <= STORY
    for beat in bank.beats:
        assert slots_in("".join((*beat.titles, *beat.summaries))) <= PLOT


@languages
def test_markers_of_the_phrase_bank_are_unique(language: Language) -> None:
    bank = Bank.load(language)
    markers = [item.marker for items in (bank.worlds, bank.motifs) for item in items]
    for world in bank.worlds:
        markers += [item.marker for items in (world.heroes, world.antagonists) for item in items]
    markers += [*bank.names, *bank.companions, *bank.elders]
    assert len(markers) == len(set(markers))
    everything = bank.model_dump_json(include={"worlds", "motifs", "allies", "mentors", "beats"})
    assert [name for name in (*bank.names, *bank.companions, *bank.elders) if name in everything] == []


@languages
def test_heroes_and_antagonists_make_valid_characters(language: Language) -> None:
    for world in Bank.load(language).worlds:
        for one in world.antagonists:
            Character(role=CharacterRole.ANTAGONIST, **one.model_dump(exclude={"keywords"}))
        for hero in world.heroes:
            assert len(hero.role) < 60


@languages
def test_keywords_match_their_world_or_motif(language: Language) -> None:
    bank = Bank.load(language)
    items: list[World | Motif] = [*bank.worlds, *bank.motifs]
    for item in items:
        assert any(bank.keyword_score(keyword, item.keywords) > 0 for keyword in item.keywords), item.marker


@pytest.mark.parametrize(
    ("language", "text", "keyword_score"),
    [
        ("en", "dark", 1),
        ("en", "DARK, please", 1),
        ("en", "darkroom", 0),
        ("en", "less dark", -1),
        ("en", "not too dark", -1),
        ("en", "too dark", -1),
        ("en", "not dark enough", 1),
        ("en", "no, dark!", 1),
        ("en", "less talk and more dark rooms", 1),
        ("zh", "更黑暗", 1),
        ("zh", "不要太黑暗", -1),
        ("zh", "少说教，多一点黑暗", 1),
        ("zh", "不够黑暗", 1),
        ("zh", "没有黑暗得不够", 1),
        ("zh", "光", 0),
    ],
)
def test_keyword_score_respects_negations(language: Language, text: str, keyword_score: int) -> None:
    assert Bank.load(language).keyword_score(text, ("dark", "黑暗")) == keyword_score
