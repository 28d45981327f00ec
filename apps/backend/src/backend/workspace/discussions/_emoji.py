"""Validate reactions: one emoji, possibly of several characters (Unicode Technical Standard 51)."""

import re
from typing import Final

from backend.workspace.errors import EmojiInvalid

__all__ = ("parse_emoji",)

_BYTES_MAX: Final = 40
#: Characters that are an emoji: blocks of pictographs, and symbols that have a coloured form, with chess
#: pieces.
_BASE: Final = (
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]"
)
_SKIN: Final = "[\U0001f3fb-\U0001f3ff]"
#: Regional indicators: two of them are a flag; one alone is not an emoji.
_LETTER: Final = "[\U0001f1e6-\U0001f1ff]"
_KEYCAP: Final = "[0-9#*]\ufe0f?\u20e3"
#: An element of an emoji: a pictograph, then a variation selector or a skin tone, then the tags of a region's
#: flag.
_ELEMENT: Final = f"(?:(?!{_LETTER}){_BASE}(?:\ufe0f|{_SKIN})?(?:[\U000e0020-\U000e007e]{{1,6}}\U000e007f)?)"
_EMOJI: Final = re.compile(f"(?:{_LETTER}{{2}}|{_KEYCAP}|{_ELEMENT}(?:\u200d{_ELEMENT})*)")


def parse_emoji(text: str) -> str:
    """Return *text* if it is one emoji.

    Raises:
        EmojiInvalid: *text* is not one emoji, or is longer than 40 bytes.
    """
    if len(text.encode("utf-8", "replace")) > _BYTES_MAX or not _EMOJI.fullmatch(text):
        raise EmojiInvalid
    return text
