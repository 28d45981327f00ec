"""Find the entries of the phrase bank with which the confirmed texts of a story were composed."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from shared_types.genesis import Worldview

from backend.genesis.muse._language import texts_of
from backend.genesis.muse._muse import Brief
from backend.genesis.muse._phrases import Antagonist, Bank, Hero, Motif, World
from backend.genesis.muse._text import ranked

__all__ = ["Story"]


@dataclass(frozen=True, kw_only=True)
class Story:
    """The entries of the phrase bank (world, hero, motif, antagonist) that the texts of a story contain.

    An entry is recognised by its marker, which every text that was composed with the entry contains. Texts
    that the writer wrote contain no markers. Then the entries are chosen by keywords, and `slots` contain
    "the protagonist" instead of a name that the writer did not choose.

    text: all confirmed texts and preferences.
    name: name of the hero; None if the texts contain no name of the phrase bank.
    motif_is_guessed: the motif was chosen by keywords, so the texts do not contain the beginning of its plot.
    slots: the values of the placeholders in phrases, by name: `hero` is the value of {hero}.
    """

    text: str
    world: World
    hero: Hero
    motif: Motif
    antagonist: Antagonist
    name: str | None
    motif_is_guessed: bool
    slots: Mapping[str, str]

    @staticmethod
    def from_brief(bank: Bank, brief: Brief, rng: Random) -> "Story":
        """Return the story of *brief*; *rng* decides between entries that match equally."""
        text = texts_of((*brief.confirmed.values(), brief.preferences))
        world = ranked(bank, bank.worlds, text, rng)[0]
        hero = ranked(bank, world.heroes, text, rng)[0]
        motif = ranked(bank, bank.motifs, text, rng)[0]
        antagonist = ranked(bank, world.antagonists, text, rng)[0]
        name = next((name for name in bank.names if name in text), None)
        slots = {
            "hero": name or bank.words.hero,
            "role": hero.role,
            "object": hero.object if hero.marker in text else bank.words.object,
            "force": antagonist.name,
            "thing": world.thing,
            **_place_slots(bank, brief, world, text),
        }
        return Story(
            text=text,
            world=world,
            hero=hero,
            motif=motif,
            antagonist=antagonist,
            name=name,
            motif_is_guessed=motif.marker not in text,
            slots=slots,
        )


def _place_slots(bank: Bank, brief: Brief, world: World, text: str) -> dict[str, str]:
    """Return the values of {world} and {where}: of *world*, or of the first place in the writer's world."""
    own = next((content for content in brief.confirmed.values() if isinstance(content, Worldview)), None)
    if own is None or world.marker in text:
        return {"world": world.name, "where": world.where}
    place = own.places[0].name
    return {"world": place, "where": bank.words.where.format(place=place)}
