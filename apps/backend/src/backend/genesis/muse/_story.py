"""What is known of the story so far, read back from what the writer has confirmed."""

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

    A writer's own text bears no marks. Then the best fit by keywords stands in, and `slots` speak of "the
    protagonist" instead of putting a stranger's name and trade into the writer's story.

    text: everything confirmed and asked for.
    name: of the hero; null where the texts name none that we know.
    motif_is_guessed: the motif was guessed, so its beginning still has to be told.
    slots: for the frames of the phrase bank.
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
        """The story of this brief."""
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
    """The world of the story; once the writer has confirmed a world of their own, its first place."""
    own = next((content for content in brief.confirmed.values() if isinstance(content, Worldview)), None)
    if own is None or world.marker in text:
        return {"world": world.name, "where": world.where}
    place = own.places[0].name
    return {"world": place, "where": bank.words.where.format(place=place)}
