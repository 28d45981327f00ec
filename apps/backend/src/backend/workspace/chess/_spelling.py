"""Words that files write in place of PGN's own: results, castling, checks, glyphs."""

import re
from dataclasses import dataclass
from typing import Final

from backend.workspace.chess._headers import RESULTS

__all__ = ("REDUNDANT", "Respelled", "nag_of_sign", "respelled", "result_of")

#: Hyphens, dashes and the minus sign that typography puts in the place of ``-``.
_DASHES: Final = str.maketrans(dict.fromkeys("‐‑‒–—―−﹣－", "-"))
#: Signs that annotators write for glyphs.
_SIGN_NAGS: Final = {
    "=": 10, "∞": 13, "+=": 14, "+/=": 14, "⩲": 14, "=+": 15, "=/+": 15, "⩱": 15, "±": 16, "+/-": 16,
    "∓": 17, "-/+": 17, "+-": 18, "-+": 19, "N": 146, "+--": 18, "--+": 19, "□": 7,
}  # fmt: skip
#: Signs of these that are no common usage: reading one is noted.
_LOOSE_SIGNS: Final = frozenset({"+--", "--+", "□"})
#: Signs that also stand right behind a move.
_CLINGING: Final = "∞⩲⩱±∓□"
_RESULT_SIGNS: Final = {"½-½": "1/2-1/2", "1/2": "1/2-1/2", **{one: one for one in RESULTS}}
REDUNDANT: Final = frozenset({"e.p.", "ep", "+", "++", "#"})
"""Words that say of a move what its position says anyway."""
_CASTLING: Final = re.compile(r"[Oo0](?:-[Oo0]){1,2}[+#]?")
_UPPER: Final = str.maketrans("o0", "OO")


@dataclass(frozen=True, slots=True, kw_only=True)
class Respelled:
    """A word that is no move in SAN, as SAN would have it."""

    word: str
    #: Glyphs that clung to it.
    nags: tuple[int, ...] = ()
    #: What was read differently; empty where files commonly write so.
    notes: tuple[str, ...] = ()


def result_of(word: str) -> str | None:
    """Return the result that *word* stands for, with any dash and with ``½``; null if it is none."""
    return _RESULT_SIGNS.get(word.translate(_DASHES))


def nag_of_sign(word: str) -> tuple[int, bool] | None:
    """Return the glyph of a sign, and whether reading it is to be noted; null if it is none."""
    plain = word.translate(_DASHES)
    nag = _SIGN_NAGS.get(plain)
    return None if nag is None else (nag, plain != word or plain in _LOOSE_SIGNS)


def respelled(word: str) -> Respelled:
    """Return *word* without what clings to it, and with castling and hyphens as SAN writes them."""
    notes: list[str] = []
    plain = word.translate(_DASHES)
    bare = plain.rstrip(_CLINGING)
    signs = plain[len(bare) :]
    if "□" in signs:
        notes.append("□ is read as the glyph $7")
    bare = bare.rstrip(".,").removesuffix("e.p").removesuffix("ep")
    if bare.endswith("++"):
        bare = bare[:-2]
        notes.append("++ behind a move is read as a check")
    if _CASTLING.fullmatch(bare):
        upper = bare.translate(_UPPER)
        if plain != word or "o" in bare:
            notes.append(f"{word} is read as {upper}")
        bare = upper
    elif plain != word:
        notes.append("a dash in a move is read as a hyphen")
    return Respelled(word=bare, nags=tuple(_SIGN_NAGS[sign] for sign in signs), notes=tuple(notes))
