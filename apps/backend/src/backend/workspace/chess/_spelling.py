"""Convert common variants of PGN notation to the standard: results, castling, checks, glyphs."""

import re
from dataclasses import dataclass
from typing import Final

from backend.workspace.chess._headers import RESULTS

__all__ = ("REDUNDANT", "Respelling", "parse_nag_sign", "parse_result", "respell")

#: Hyphens, dashes and minus signs used instead of ``-``.
_DASHES: Final = str.maketrans(dict.fromkeys("‐‑‒–—―−﹣－", "-"))
#: Numeric annotation glyphs (NAG) by the signs that files contain instead.
_SIGN_NAGS: Final = {
    "=": 10, "∞": 13, "+=": 14, "+/=": 14, "⩲": 14, "=+": 15, "=/+": 15, "⩱": 15, "±": 16, "+/-": 16,
    "∓": 17, "-/+": 17, "+-": 18, "-+": 19, "N": 146, "+--": 18, "--+": 19, "□": 7,
}  # fmt: skip
#: Signs whose meaning differs between authors; the parser adds a note for each.
_LOOSE_SIGNS: Final = frozenset({"+--", "--+", "□"})
#: Signs that may follow a move without a space.
_ATTACHED_SIGNS: Final = "∞⩲⩱±∓□"
_RESULT_SIGNS: Final = {"½-½": "1/2-1/2", "1/2": "1/2-1/2", **{one: one for one in RESULTS}}
REDUNDANT: Final = frozenset({"e.p.", "ep", "+", "++", "#"})
"""Words after a move that the position implies, such as ``e.p.``; they are ignored."""
_CASTLING: Final = re.compile(r"[Oo0](?:-[Oo0]){1,2}[+#]?")
_UPPER: Final = str.maketrans("o0", "OO")


@dataclass(frozen=True, slots=True, kw_only=True)
class Respelling:
    """A word of the file, converted to SAN."""

    word: str
    #: Glyphs whose signs followed the word without a space.
    nags: tuple[int, ...] = ()
    #: Notes on the conversion; empty for common variants.
    notes: tuple[str, ...] = ()


def parse_result(word: str) -> str | None:
    """Return the PGN result for *word*, with any dash or ``½``; None if *word* is not a result."""
    return _RESULT_SIGNS.get(word.translate(_DASHES))


def parse_nag_sign(word: str) -> tuple[int, bool] | None:
    """Return the glyph of the sign *word*, and whether to add a note to the import; None for other words."""
    plain = word.translate(_DASHES)
    nag = _SIGN_NAGS.get(plain)
    return None if nag is None else (nag, plain != word or plain in _LOOSE_SIGNS)


def respell(word: str) -> Respelling:
    """Return *word* without signs for glyphs, and with castling, hyphens and checks as in SAN."""
    notes: list[str] = []
    plain = word.translate(_DASHES)
    bare = plain.rstrip(_ATTACHED_SIGNS)
    signs = plain[len(bare) :]
    if "□" in signs:
        notes.append("□ is read as the glyph $7")
    bare = bare.rstrip(".,").removesuffix("e.p").removesuffix("ep")
    if bare.endswith("++"):
        bare = bare[:-2]
        notes.append("++ after a move is read as a check")
    if _CASTLING.fullmatch(bare):
        upper = bare.translate(_UPPER)
        if plain != word or "o" in bare:
            notes.append(f"{word} is read as {upper}")
        bare = upper
    elif plain != word:
        notes.append("a dash in a move is read as a hyphen")
    return Respelling(word=bare, nags=tuple(_SIGN_NAGS[sign] for sign in signs), notes=tuple(notes))
