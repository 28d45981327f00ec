"""Fill templates with phrases, join sentences, and limit the length of texts."""

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeVar

from backend.genesis.muse._phrases import Bank, Item

__all__ = ["clip", "fill", "join", "paragraph", "ranked", "sentence"]

PARAGRAPH_CHARS_MAX = 1200

_SENTENCE_START = re.compile(r"(^|[.!?]”? +)([a-z])")
_SENTENCE_END = re.compile(r"[.!?。！？][”’]?(?=\s|$|[\u3000-\u9fff])")

AnyItem = TypeVar("AnyItem", bound=Item)


def fill(frame: str, slots: Mapping[str, str]) -> str:
    """Return the template *frame* with *slots* in its placeholders; each sentence begins with a capital."""
    return _SENTENCE_START.sub(lambda start: start[1] + start[2].upper(), frame.format_map(slots))


def clip(text: str, chars_max: int) -> str:
    """Return the whole sentences of *text* that fit into *chars_max*; if none fits, cut and add "…"."""
    if len(text) <= chars_max:
        return text
    ends = [end.end() for end in _SENTENCE_END.finditer(text, 0, chars_max)]
    return text[: ends[-1]] if ends else text[: chars_max - 1].rstrip() + "…"


def paragraph(bank: Bank, *sentences: str) -> str:
    """Return *sentences*, without empty ones, as one paragraph of at most 1,200 characters."""
    return clip(bank.words.gap.join(sentence(bank, one) for one in sentences if one), PARAGRAPH_CHARS_MAX)


def sentence(bank: Bank, text: str) -> str:
    """Return *text* with a full stop at its end, if it has no punctuation there."""
    return text if re.search(r"[.!?…。！？][”’\"')）]*$", text) else text + bank.words.stop


def join(bank: Bank, names: Sequence[str]) -> str:
    """Return *names* as an enumeration in the language of *bank*, in English: a, b and c."""
    *first, last = names
    return bank.words.and_.join([bank.words.comma.join(first), last]) if first else last


def ranked(bank: Bank, items: Sequence[AnyItem], text: str, rng: Random) -> list[AnyItem]:
    """Return *items* sorted by their match with *text*, best first, and equal matches in random order.

    An item whose marker is in *text* comes before all others: *text* was composed with that item.
    """

    def fit(item: AnyItem) -> tuple[bool, int]:
        return item.marker is not None and item.marker in text, bank.keyword_score(text, item.keywords)

    return sorted(rng.sample(items, len(items)), key=fit, reverse=True)
