"""Compose a proposal from the phrase bank: a pure function, with the same result for the same brief."""

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeVar

from pydantic_core import to_json
from shared_types.genesis import (
    CONCEPT_OPTIONS,
    AnyContent,
    Chapter,
    Character,
    CharacterRole,
    Characters,
    Concept,
    GenesisStage,
    PlotOutline,
    Proposal,
    StoryConception,
    Worldview,
)

from backend.genesis.muse._language import language_of, texts_of
from backend.genesis.muse._muse import Brief
from backend.genesis.muse._phrases import Bank, Companion, Motif, StyleRequest, World
from backend.genesis.muse._story import Story
from backend.genesis.muse._text import clip, fill, join, paragraph, ranked, sentence

__all__ = ["compose"]

_TITLE_CHARS_MAX = 200
_THEMES_MAX = 12
_STYLE_REQUESTS_MAX = 2

Phrase = TypeVar("Phrase")


def compose(brief: Brief) -> Proposal:
    """Return the proposal for *brief*, in the language of the brief.

    Raises:
        MuseBriefIncomplete: An earlier stage that the proposal builds on is missing.
    """
    return _Composer(brief).proposal()


class _Composer:
    """Chooses phrases of the brief's language with a random generator whose seed is the whole brief."""

    def __init__(self, brief: Brief) -> None:
        self._brief = brief
        self._bank = Bank.load(language_of(brief))
        self._rng = Random(_fingerprint(brief))  # noqa: S311 - must be repeatable
        notes = (brief.preferences.notes or "", *(one.feedback for one in brief.feedback))
        self._style_requests = self._style_requests_in("\n".join(notes))

    def proposal(self) -> Proposal:
        match self._brief.stage:
            case GenesisStage.CONCEPT_SELECTION:
                options: Sequence[AnyContent] = self._concepts()
            case GenesisStage.STORY_CONCEPTION:
                options = self._conceptions()
            case GenesisStage.WORLDVIEW:
                options = self._worldviews()
            case GenesisStage.CHARACTERS:
                options = self._casts()
            case GenesisStage.PLOT_OUTLINE:
                options = self._outlines()
            case GenesisStage.FINISHED:
                raise ValueError("the stage FINISHED has no content to propose")
        return Proposal(stage=self._brief.stage, options=tuple(options), remark=self._remark(options))

    # ------------------------------------------------------------------------------------ concepts

    def _concepts(self) -> list[Concept]:
        """Return three concepts with different heroes and motifs, in worlds that fit the requests."""
        requests = self._requests()
        text = "\n".join(requests)
        worlds = self._worlds_for(requests)
        heroes = {world.name: ranked(self._bank, world.heroes, text, self._rng) for world in worlds}
        motifs = ranked(self._bank, self._bank.motifs, text, self._rng)
        names = self._rng.sample(self._bank.names, CONCEPT_OPTIONS)
        concepts: list[Concept] = []
        for number, name in enumerate(names):
            world = worlds[number % len(worlds)]
            hero = heroes[world.name].pop(0)
            slots = {"hero": name, "role": hero.role, "object": hero.object, "where": world.where}
            concepts.append(self._concept(world, motifs[number], {**slots, "thing": world.thing}))
        return concepts

    def _worlds_for(self, requests: Sequence[str]) -> list[World]:
        """Return the worlds that match the first request with a matching world.

        If no request matches a world, return all worlds that no request rejects ("no space stations").
        """
        worlds = self._rng.sample(self._bank.worlds, len(self._bank.worlds))
        for text in requests:
            meant = [world for world in worlds if self._bank.keyword_score(text, world.keywords) > 0]
            if meant:
                return meant
        text = "\n".join(requests)
        return [world for world in worlds if self._bank.keyword_score(text, world.keywords) == 0] or worlds

    def _concept(self, world: World, motif: Motif, slots: Mapping[str, str]) -> Concept:
        requested = self._brief.preferences.theme_preferences
        keywords = (*world.keywords, *motif.keywords)
        missing_themes = [theme for theme in requested if self._bank.keyword_score(theme, keywords) == 0][:3]
        slots = {**slots, **_opening_slots(motif, slots)}
        words = self._bank.words
        undertone = (
            fill(words.undertone, {"themes": join(self._bank, missing_themes)}) if missing_themes else ""
        )
        themes = dict.fromkeys((*requested[: _THEMES_MAX - 1], motif.theme))
        return Concept(
            title=fill(self._rng.choice(motif.titles), slots),
            logline=fill(self._rng.choice(words.loglines), slots),
            hook=paragraph(self._bank, motif.question, undertone, *self._request_sentences()),
            themes=tuple(themes),
            tone=self._tone(world),
        )

    def _tone(self, world: World) -> str:
        """Return the tone of the world with the requested styles, at most 200 characters."""
        styles = [
            *self._brief.preferences.style_preferences,
            *(request.tone for request in self._style_requests),
        ]
        if not styles:
            return world.tone
        listed = self._bank.words.comma.join(styles)
        return clip(
            self._bank.words.tone.format_map({"tone": world.tone, "styles": listed}), _TITLE_CHARS_MAX
        )

    # ------------------------------------------------------------------- premise and world

    def _conceptions(self) -> list[StoryConception]:
        """Return two conceptions with the same premise, and with different endings and perspectives."""
        concept = self._brief.content(Concept)
        story = self._story()
        motif, slots = story.motif, story.slots
        bridge = self._bank.words.bridge if story.motif_is_guessed else ""
        bridge = fill(bridge, {**slots, **_opening_slots(motif, slots)})
        perspectives = ranked(self._bank, self._bank.perspectives, story.text, self._rng)
        premise = paragraph(self._bank, clip(concept.logline, 500), bridge, fill(motif.premise, slots))
        return [
            StoryConception(
                premise=premise,
                conflict=paragraph(self._bank, fill(motif.conflict, slots), *self._request_sentences()),
                stakes=fill(motif.stakes, slots),
                ending=fill(ending, slots),
                perspective=fill(perspective.text, slots),
            )
            for ending, perspective in zip(self._shuffled(motif.endings), perspectives, strict=False)
        ]

    def _worldviews(self) -> list[Worldview]:
        """Return two worldviews of one world: other societies, and the rule of the motif as the last rule."""
        self._brief.content(StoryConception)  # only checks that this stage is confirmed
        story = self._story()
        world, motif = story.world, story.motif
        home, *places = world.places
        places, rules = self._shuffled(places), self._shuffled(world.rules)
        return [
            Worldview(
                era=world.era,
                setting=world.setting,
                society=paragraph(self._bank, society, *self._request_sentences()),
                places=(home, *places[number : number + 2]),
                rules=(*rules[number : number + 2], motif.rule),
            )
            for number, society in enumerate(self._shuffled(world.societies))
        ]

    # -------------------------------------------------------------------------------- people

    def _casts(self) -> list[Characters]:
        """Return two casts with the same hero and antagonist, and with different allies and mentors."""
        place = self._brief.content(Worldview).places[0].name
        story = self._story()
        name = story.name or self._rng.choice(self._bank.names)
        slots = {**story.slots, "hero": name, "object": story.hero.object, "place": place}
        companions = self._rng.sample(self._bank.companions, 2)
        elders = self._rng.sample(self._bank.elders, 2)
        allies = self._rng.sample(self._bank.allies, 2)
        mentors = self._rng.sample(self._bank.mentors, 2)
        lead = Character(
            name=name,
            role=CharacterRole.PROTAGONIST,
            description=fill(self._bank.words.protagonist, slots),
            desire=story.hero.desire,
            flaw=story.hero.flaw,
            arc=paragraph(self._bank, story.motif.arc, *self._request_sentences()),
        )
        rival = story.antagonist
        against = Character(role=CharacterRole.ANTAGONIST, **rival.model_dump(exclude={"keywords"}))
        return [
            Characters(
                characters=(
                    lead,
                    against,
                    _character(companions[number], CharacterRole.ALLY, allies[number], slots),
                    _character(elders[number], CharacterRole.MENTOR, mentors[number], slots),
                )
            )
            for number in range(2)
        ]

    # ---------------------------------------------------------------------------------- plot

    def _outlines(self) -> list[PlotOutline]:
        """Return two outlines with the confirmed characters, places, rule and ending."""
        slots = self._plot_slots()
        ways = [self._rng.randrange(2) for _ in self._bank.beats]
        middle = len(self._bank.beats) // 2
        return [
            PlotOutline(
                chapters=tuple(
                    Chapter(
                        number=number,
                        act=beat.act,
                        title=clip(fill(beat.titles[way ^ option], slots), _TITLE_CHARS_MAX),
                        summary=paragraph(
                            self._bank,
                            fill(beat.summaries[way ^ option], slots),
                            *(self._request_sentences() if number == middle else ()),
                        ),
                    )
                    for number, (beat, way) in enumerate(zip(self._bank.beats, ways, strict=True), start=1)
                )
            )
            for option in range(2)
        ]

    def _plot_slots(self) -> dict[str, str]:
        story, words = self._story(), self._bank.words
        conception, world = self._brief.content(StoryConception), self._brief.content(Worldview)
        cast = self._brief.content(Characters).characters
        by_role = {character.role: character for character in reversed(cast)}
        hero = by_role[CharacterRole.PROTAGONIST]

        def named(role: CharacterRole, stand_in: str) -> str:
            return by_role[role].name if role in by_role else stand_in

        def of_hero(text: str) -> str:
            # A text that was confirmed before the hero had a name contains "the protagonist" instead.
            named = re.sub(re.escape(words.hero), lambda _: hero.name, text, flags=re.IGNORECASE)
            return sentence(self._bank, clip(named, 380))

        return {
            "title": self._brief.content(Concept).title,
            "hero": hero.name,
            "hero_flaw": sentence(self._bank, clip(hero.flaw, 200)),
            "hero_desire": sentence(self._bank, clip(hero.desire, 200)),
            "antagonist": named(CharacterRole.ANTAGONIST, words.antagonist),
            "ally": named(CharacterRole.ALLY, words.ally),
            "mentor": named(CharacterRole.MENTOR, words.mentor),
            **{f"place_{letter}": world.places[n % len(world.places)].name for n, letter in enumerate("abc")},
            # The last rule is that of the motif.
            "rule": sentence(self._bank, clip(world.rules[-1], 200)),
            "object": story.slots["object"],
            "question": story.motif.question,
            "stakes": of_hero(conception.stakes),
            "conflict": of_hero(conception.conflict),
            "ending": of_hero(conception.ending),
        }

    # -------------------------------------------------------------------- texts of the writer

    def _requests(self) -> list[str]:
        """Return the writer's feedback, newest first, then notes, themes and styles: in order of priority."""
        preferences = self._brief.preferences
        newest_first = [one.feedback for one in reversed(self._brief.feedback)]
        notes = [] if preferences.notes is None else [preferences.notes]
        return [*newest_first, *notes, *preferences.theme_preferences, *preferences.style_preferences]

    def _style_requests_in(self, text: str) -> list[StyleRequest]:
        """Return the style requests that *text* contains, at most `_STYLE_REQUESTS_MAX`."""
        keyword_score = self._bank.keyword_score
        return [
            request
            for request in self._bank.style_requests
            if keyword_score(text, request.keywords) > 0 or keyword_score(text, request.complaints) < 0
        ][:_STYLE_REQUESTS_MAX]

    def _request_sentences(self) -> list[str]:
        """Return one sentence for each style request, except sentences that a confirmed text contains."""
        confirmed = texts_of(self._brief.confirmed.values())
        fresh = [
            [text for text in request.sentences if text not in confirmed] for request in self._style_requests
        ]
        return [self._rng.choice(sentences) for sentences in fresh if sentences]

    def _remark(self, options: Sequence[AnyContent]) -> str:
        """Return the text for the writer: what the proposal builds on, and how it uses the feedback."""
        remarks = self._bank.remarks
        slots: dict[str, str] = {}
        match options[0]:
            case Concept():
                titles = [one.title for one in options if isinstance(one, Concept)]
                quoted = [self._bank.words.quoted.format(title=title) for title in titles]
                slots["titles"] = join(self._bank, quoted)
            case StoryConception() | Worldview():
                slots["title"] = self._brief.content(Concept).title
            case Characters():
                place = self._brief.content(Worldview).places[0].name
                slots |= {"title": self._brief.content(Concept).title, "place": place}
            case PlotOutline():
                slots = self._plot_slots()
        remark = remarks.stages[self._brief.stage].format_map(slots)
        if not self._brief.feedback:
            return remark
        feedback = sentence(self._bank, clip(self._brief.feedback[-1].feedback, 300))
        requests = self._style_requests_in(self._brief.feedback[-1].feedback)
        frame = remarks.answered if requests else remarks.heard
        answer = self._bank.words.and_then.join(request.answer for request in requests)
        return paragraph(self._bank, frame.format_map({"feedback": feedback, "answer": answer}), remark)

    def _story(self) -> Story:
        return Story.from_brief(self._bank, self._brief, self._rng)

    def _shuffled(self, phrases: Sequence[Phrase]) -> list[Phrase]:
        return self._rng.sample(phrases, len(phrases))


def _opening_slots(motif: Motif, slots: Mapping[str, str]) -> dict[str, str]:
    """Return the values of {discovery} and {pressure}, placeholders in templates of a story's beginning."""
    return {"discovery": motif.discovery.format_map(slots), "pressure": fill(motif.pressure, slots)}


def _character(name: str, role: CharacterRole, one: Companion, slots: Mapping[str, str]) -> Character:
    return Character(
        name=name,
        role=role,
        description=fill(one.description, slots),
        desire=one.desire,
        flaw=one.flaw,
        arc=one.arc,
    )


def _fingerprint(brief: Brief) -> bytes:
    """Return the whole brief as bytes, the seed of the choices: another brief gives another proposal."""
    confirmed = sorted(brief.confirmed.items())  # JSONB does not keep the order of keys
    return to_json((brief.stage, brief.preferences, confirmed, brief.feedback, brief.seed))
