"""The phrase bank of a language: the texts of the offline muse, in `phrases/<language>/*.toml`."""

import re
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from shared_types.genesis import GenesisStage, Place

from backend.genesis.muse._language import Language

__all__ = [
    "Antagonist",
    "Bank",
    "Beat",
    "Companion",
    "Hero",
    "Item",
    "Motif",
    "Perspective",
    "StyleRequest",
    "World",
]

Pair = Annotated[tuple[str, ...], Field(min_length=2, max_length=2)]
"""Two variants of a text, for the two options of a proposal."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Item(_Entry):
    """An entry that the muse chooses if the writer's texts contain its keywords.

    Later proposals recognise the entry by its marker, which every text composed with the entry contains.
    """

    keywords: tuple[str, ...] = ()

    @property
    def marker(self) -> str | None:
        """Return a text that every text composed with this entry contains; None if there is no such text."""
        return None


class Hero(Item):
    """A protagonist without a name; `role`, the profession, is the marker."""

    role: str
    object: str
    desire: str
    flaw: str

    @property
    def marker(self) -> str:
        return self.role


class Antagonist(Item):
    """An antagonist of the hero; `name` is the marker."""

    name: str
    description: str
    desire: str
    flaw: str
    arc: str

    @property
    def marker(self) -> str:
        return self.name


class World(Item):
    """Place and time of a story; `name` is the marker, and `thing` a noun that titles contain."""

    name: str
    where: str
    thing: str
    tone: str
    era: str
    setting: str
    societies: Pair
    places: Annotated[tuple[Place, ...], Field(min_length=4)]
    rules: Annotated[tuple[str, ...], Field(min_length=3)]
    heroes: Annotated[tuple[Hero, ...], Field(min_length=3)]
    antagonists: Annotated[tuple[Antagonist, ...], Field(min_length=1)]

    @property
    def marker(self) -> str:
        return self.name


class Motif(Item):
    """The theme and plot of a story; `question` is the marker."""

    theme: str
    titles: Pair
    discovery: str
    pressure: str
    question: str
    premise: str
    conflict: str
    stakes: str
    endings: Pair
    arc: str
    rule: str

    @property
    def marker(self) -> str:
        return self.question


class Companion(_Entry):
    """An ally or mentor of the hero, without a name."""

    description: str
    desire: str
    flaw: str
    arc: str


class Perspective(Item):
    """A narrative perspective, such as first person."""

    text: str


class StyleRequest(Item):
    """A change of style that writers request, and the sentences that fulfil the request.

    A text requests the style in one of two ways. It contains one of `keywords`; or it rejects the opposite
    style, with a negation before one of `complaints`: "no happy ending" requests a darker style.
    """

    complaints: tuple[str, ...]
    tone: str
    answer: str
    sentences: Pair


class Beat(_Entry):
    """Titles and summaries for one chapter of the plot."""

    act: int
    titles: Pair
    summaries: Pair


class Words(_Entry):
    """Conjunctions and punctuation, placeholders for missing names, and templates of sentences."""

    hero: str
    object: str
    where: str
    antagonist: str
    ally: str
    mentor: str
    gap: str
    stop: str
    negation: str
    insistence: str
    comma: str
    and_then: str
    quoted: str
    and_: Annotated[str, Field(alias="and")]
    tone: str
    bridge: str
    protagonist: str
    undertone: str
    loglines: Pair


class Remarks(_Entry):
    """Templates of the remark on a proposal: by stage, and for feedback that was or was not understood."""

    stages: dict[GenesisStage, str]
    answered: str
    heard: str


class Bank(_Entry):
    """All phrases of one language."""

    names: Annotated[tuple[str, ...], Field(min_length=3)]
    companions: Annotated[tuple[str, ...], Field(min_length=4)]
    elders: Annotated[tuple[str, ...], Field(min_length=4)]
    words: Words
    remarks: Remarks
    worlds: Annotated[tuple[World, ...], Field(min_length=1)]
    motifs: Annotated[tuple[Motif, ...], Field(min_length=3)]
    allies: Annotated[tuple[Companion, ...], Field(min_length=2)]
    mentors: Annotated[tuple[Companion, ...], Field(min_length=2)]
    perspectives: Annotated[tuple[Perspective, ...], Field(min_length=2)]
    style_requests: tuple[StyleRequest, ...]
    beats: Annotated[tuple[Beat, ...], Field(min_length=3)]

    @staticmethod
    @cache
    def load(language: Language) -> "Bank":
        """Return the phrase bank of *language*, read and validated at the first call."""
        folder = files("backend.genesis.muse") / "phrases" / language
        tables = (
            tomllib.loads(file.read_text("utf-8")) for file in folder.iterdir() if file.name.endswith(".toml")
        )
        return Bank.model_validate({key: value for table in tables for key, value in table.items()})

    def keyword_score(self, text: str, keywords: Iterable[str]) -> int:
        """Return the number of *keywords* in *text*; a negated keyword ("not too dark") counts -1."""
        return sum(self._score(text, keyword) for keyword in keywords)

    def _score(self, text: str, keyword: str) -> int:
        found = _pattern(keyword).search(text)
        if found is None:
            return 0
        if re.match(self.words.insistence, text[found.end() :], re.IGNORECASE):
            return 1
        before = text[max(0, found.start() - 24) : found.start()]
        return -1 if re.search(self.words.negation, before, re.IGNORECASE) else 1


@cache
def _pattern(keyword: str) -> re.Pattern[str]:
    """Return the pattern that finds *keyword* in a text.

    A keyword with characters outside ASCII matches anywhere, because Chinese has no word boundaries. An ASCII
    keyword of less than five letters matches only a whole word or its plural ("war" is in "wars", but not in
    "warm"). A longer keyword also matches the beginning of a word ("histor": history, historical).
    """
    if not keyword.isascii():
        return re.compile(re.escape(keyword))
    end = "" if len(keyword) >= 5 else r"s?(?![A-Za-z])"
    return re.compile(rf"(?<![A-Za-z]){re.escape(keyword)}{end}", re.IGNORECASE)
