"""The elements of the phrase bank that the confirmed texts of a story contain."""

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
    """A world, a hero and a motif, each recognised by its marker in the confirmed texts.

    A writer's own text has no markers. Then the best match by keywords is used, and `slots` say "the
    protagonist" instead of a name and a profession that the writer did not choose.

    text: all confirmed texts and preferences.
    name: of the hero; None if the texts contain no name of the phrase bank.
    motif_is_guessed: the texts have no marker of a motif, so they do not contain the motif's beginning.
    slots: the values for the slots of the phrase bank.
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
        """Return the story of *brief*."""
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
    """Return the slots ``world`` and ``where``: the world, or the first place of the writer's world."""
    own = next((content for content in brief.confirmed.values() if isinstance(content, Worldview)), None)
    if own is None or world.marker in text:
        return {"world": world.name, "where": world.where}
    place = own.places[0].name
    return {"world": place, "where": bank.words.where.format(place=place)}
