"""What stands in a PGN comment: text, and commands such as ``[%clk 0:03:00]``.

A comment ends at the first ``}`` and PGN has no way around it (PGN standard, 5). So that any text survives,
four characters are written as the character references of HTML where they would be misread: ``}`` anywhere
(``&#125;``), ``%`` and what looks like a tag pair at the beginning of a line (``&#37;``, ``&#91;``), and
``&`` where it would be read as one of these (``&#38;``). Line breaks are written as they are. Reading undoes
it.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from backend.workspace.chess._tree import Annotation
from backend.workspace.errors import AnnotationInvalid

__all__ = (
    "NAG_MAX",
    "SHAPES_MAX",
    "TAG_NAME",
    "TEXT_CHARS_MAX",
    "canonical",
    "comment_of",
    "escaped",
    "folded",
    "unescaped",
)

TEXT_CHARS_MAX: Final = 10_000
"""Characters of an annotation: its text and the text before the move together."""
SHAPES_MAX: Final = 256
"""Arrows of one annotation; as many circles."""
NAG_MAX: Final = 255
"""The last numeric annotation glyph (PGN standard, 10)."""
TAG_NAME: Final = "[A-Za-z0-9][A-Za-z0-9_+#=:-]{0,63}"
"""The name of a tag pair."""

_CLOCK_MS_MAX: Final = 1000 * 3_600_000 - 1
#: A command may appear when one inside it is taken out; nobody nests them in earnest.
_COMMANDS_NESTED_MAX: Final = 4
_CIRCLE: Final = re.compile("[RGYB][a-h][1-8]")
_ARROW: Final = re.compile(r"[RGYB]([a-h][1-8])(?!\1)[a-h][1-8]")
_CLOCK: Final = r"(?P<clk>\d{1,3}:\d{1,2}:\d{1,2}(?:\.\d{1,9})?)"
_CIRCLES: Final = rf"(?P<csl>{_CIRCLE.pattern}(?:\s*,\s*{_CIRCLE.pattern})*)"
_ARROWS: Final = r"(?P<cal>X(?:\s*,\s*X)*)".replace("X", "[RGYB](?:[a-h][1-8]){2}")
_COMMAND: Final = re.compile(rf"\[%(?:clk\s+{_CLOCK}|csl\s+{_CIRCLES}|cal\s+{_ARROWS})\s*\]")
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_ESCAPED: Final = re.compile(
    rf"&(?=#(?:38|125|91|37);)|\}}|^[ \t]*(?:%|\[(?={TAG_NAME}[ \t]+\"))", re.MULTILINE
)
_REFERENCE: Final = re.compile("&#(38|125|91|37);")


def canonical(annotation: Annotation) -> Annotation:
    """*annotation* as a file would give it back.

    Texts lose white space at their ends, carriage returns and byte order marks; a clock, arrows and circles
    that stand in the text as commands are taken out of it, the first clock unless there is one. Glyphs are
    sorted; nothing is named twice.

    Raises:
        AnnotationInvalid: over `TEXT_CHARS_MAX` or `SHAPES_MAX`; a glyph, clock or shape that PGN does not
        know.
    """
    _check_shapes(annotation)
    text, clock_s, arrows, circles = _commands_of(_text(annotation.text), annotation.clock_s)
    before = _text(annotation.before)
    made = Annotation(
        text=text,
        before=before,
        nags=tuple(sorted(set(annotation.nags))),
        clock_s=None if clock_s is None else round(clock_s * 1000) / 1000,
        arrows=tuple(dict.fromkeys((*annotation.arrows, *arrows))),
        circles=tuple(dict.fromkeys((*annotation.circles, *circles))),
    )
    # With the line break that joins them, so that `folded` never makes a text that is too long.
    if len(before) + bool(before and text) + len(text) > TEXT_CHARS_MAX:
        raise AnnotationInvalid(f"an annotation has at most {TEXT_CHARS_MAX:,} characters; shorten it")
    if max(len(made.arrows), len(made.circles)) > SHAPES_MAX:
        raise AnnotationInvalid(f"an annotation has at most {SHAPES_MAX} arrows and {SHAPES_MAX} circles")
    return made


def folded(annotation: Annotation) -> Annotation:
    """*annotation* for a move that begins no variation any more: what stood before it begins its text."""
    if not annotation.before:
        return annotation
    text = "\n".join(filter(None, (annotation.before, annotation.text)))
    return canonical(replace(annotation, text=text, before=""))


def comment_of(annotation: Annotation) -> str:
    """What stands between the braces after the move: commands, then the text; empty without either."""
    parts: list[str] = []
    if annotation.circles:
        parts.append(f"[%csl {','.join(annotation.circles)}]")
    if annotation.arrows:
        parts.append(f"[%cal {','.join(annotation.arrows)}]")
    if annotation.clock_s is not None:
        parts.append(f"[%clk {_clock(annotation.clock_s)}]")
    if annotation.text:
        parts.append(escaped(annotation.text))
    return " ".join(parts)


def escaped(text: str) -> str:
    """*text* as it may stand between braces."""
    return _ESCAPED.sub(lambda found: f"{found[0][:-1]}&#{ord(found[0][-1])};", text)


def unescaped(text: str) -> str:
    """What :func:`escaped` was given."""
    return _REFERENCE.sub(lambda found: chr(int(found[1])), text) if "&#" in text else text


def _text(text: str) -> str:
    if _UNSTORABLE.search(text):
        raise AnnotationInvalid(
            "a text holds a character that cannot be stored (NUL or half a pair); remove it"
        )
    return text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n").strip()


def _check_shapes(annotation: Annotation) -> None:
    if not all(0 <= nag <= NAG_MAX for nag in annotation.nags):
        raise AnnotationInvalid("a numeric annotation glyph is a number from 0 to 255")
    if annotation.clock_s is not None and not 0 <= annotation.clock_s * 1000 <= _CLOCK_MS_MAX:
        raise AnnotationInvalid("clock_s is a number of seconds from 0 to under 1,000 hours")
    if not all(map(_ARROW.fullmatch, annotation.arrows)):
        raise AnnotationInvalid("an arrow is a colour (R, G, Y, B) and two squares, as in Ge2e4")
    if not all(map(_CIRCLE.fullmatch, annotation.circles)):
        raise AnnotationInvalid("a circle is a colour (R, G, Y, B) and a square, as in Rd4")


def _commands_of(text: str, clock_s: float | None) -> tuple[str, float | None, list[str], list[str]]:
    """*text* without the commands that are fields; the clock, arrows and circles these say."""
    arrows: list[str] = []
    circles: list[str] = []
    for _ in range(_COMMANDS_NESTED_MAX):
        if "[%" not in text:
            return text, clock_s, arrows, circles
        pieces: list[str] = []
        end = 0
        for found in _COMMAND.finditer(text):
            if found["csl"]:
                circles += _shapes(found["csl"])
            elif found["cal"]:
                drawn = _shapes(found["cal"])
                if not all(map(_ARROW.fullmatch, drawn)):
                    continue
                arrows += drawn
            elif clock_s is not None or (clock_s := _seconds(found["clk"])) is None:
                continue
            pieces.append(text[end : found.start()])
            end = found.end()
        if not pieces:
            return text, clock_s, arrows, circles
        text = _joined([*pieces, text[end:]])
    raise AnnotationInvalid("a text has commands such as [%clk 0:03:00] inside one another; remove them")


def _joined(pieces: Iterable[str]) -> str:
    """What is left when commands between *pieces* are gone: a line break where one was, else a blank."""
    words: list[str] = []
    gap = ""
    for piece in pieces:
        word = piece.strip()
        if not word:
            gap += piece
            continue
        if words:
            gap += piece[: len(piece) - len(piece.lstrip())]
            words.append("\n" if "\n" in gap else " ")
        words.append(word)
        gap = piece[len(piece.rstrip()) :]
    return "".join(words)


def _shapes(listed: str) -> list[str]:
    return [one.strip() for one in listed.split(",")]


def _seconds(clock: str) -> float | None:
    """What ``h:mm:ss.mmm`` says; null when that is more than a clock of ours shows."""
    hours, minutes, seconds = clock.split(":")
    clock_ms = int(hours) * 3_600_000 + int(minutes) * 60_000 + round(float(seconds) * 1000)
    return clock_ms / 1000 if clock_ms <= _CLOCK_MS_MAX else None


def _clock(clock_s: float) -> str:
    seconds, milliseconds = divmod(round(clock_s * 1000), 1000)
    shown = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{shown}.{milliseconds:03}".rstrip("0") if milliseconds else shown
