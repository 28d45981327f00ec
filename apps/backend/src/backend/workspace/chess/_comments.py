"""PGN comments: text, and commands such as ``[%clk 0:03:00]``.

A comment ends at the first ``}``, which PGN cannot escape (PGN standard, 5). To preserve any text, these
characters are written as HTML character references, which the parser converts back:

* ``}``: ``&#125;``
* ``%`` at the start of a line, where it would begin a line to skip: ``&#37;``
* ``[`` at the start of a line, if it would begin a tag pair: ``&#91;``
* ``&`` before the text of such a reference: ``&#38;``
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
    "escape_comment",
    "format_comment",
    "move_before_into_text",
    "to_canonical",
    "unescape_comment",
)

TEXT_CHARS_MAX: Final = 10_000
"""Maximum number of characters in an annotation: the text before and the text after the move together."""
SHAPES_MAX: Final = 256
"""Maximum number of arrows in one annotation, and of circles."""
NAG_MAX: Final = 255
"""The highest numeric annotation glyph (PGN standard, 10)."""
TAG_NAME: Final = "[A-Za-z0-9][A-Za-z0-9_+#=:-]{0,63}"
"""A regular expression for the name of a tag pair."""

_CLOCK_MS_MAX: Final = 1000 * 3_600_000 - 1
#: Number of nested commands at which a text is refused. If a command is inside another, the outer command is
#: recognised only after the inner one was removed. Real files do not nest commands.
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


def to_canonical(annotation: Annotation) -> Annotation:
    """Return *annotation* in canonical form: as it is after writing it to a PGN file and parsing the file.

    Texts lose surrounding white space, carriage returns and byte order marks. Commands in the text become
    arrows, circles and the clock; a clock that the annotation already has is kept. Glyphs are sorted;
    duplicates are removed.

    Raises:
        AnnotationInvalid: A limit is exceeded, or PGN has no such glyph, clock or shape.
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
    # Count the line break with which promote() may join the two texts later.
    if len(before) + bool(before and text) + len(text) > TEXT_CHARS_MAX:
        raise AnnotationInvalid(f"an annotation has at most {TEXT_CHARS_MAX:,} characters; shorten it")
    if max(len(made.arrows), len(made.circles)) > SHAPES_MAX:
        raise AnnotationInvalid(
            f"an annotation has at most {SHAPES_MAX} arrows and {SHAPES_MAX} circles; remove some"
        )
    return made


def move_before_into_text(annotation: Annotation) -> Annotation:
    """Return *annotation* with ``before`` moved to the start of ``text``, as a main continuation requires."""
    if not annotation.before:
        return annotation
    text = "\n".join(filter(None, (annotation.before, annotation.text)))
    return to_canonical(replace(annotation, text=text, before=""))


def format_comment(annotation: Annotation) -> str:
    """Return the PGN comment after a move: commands, then the text; empty if the annotation has neither."""
    parts: list[str] = []
    if annotation.circles:
        parts.append(f"[%csl {','.join(annotation.circles)}]")
    if annotation.arrows:
        parts.append(f"[%cal {','.join(annotation.arrows)}]")
    if annotation.clock_s is not None:
        parts.append(f"[%clk {_clock(annotation.clock_s)}]")
    if annotation.text:
        parts.append(escape_comment(annotation.text))
    return " ".join(parts)


def escape_comment(text: str) -> str:
    """Return *text*; character references replace characters that a PGN comment cannot contain."""
    return _ESCAPED.sub(lambda found: f"{found[0][:-1]}&#{ord(found[0][-1])};", text)


def unescape_comment(text: str) -> str:
    """Reverse :func:`escape_comment`."""
    return _REFERENCE.sub(lambda found: chr(int(found[1])), text) if "&#" in text else text


def _text(text: str) -> str:
    if _UNSTORABLE.search(text):
        raise AnnotationInvalid(
            "a text contains a character that cannot be stored (NUL or an unpaired surrogate); remove it"
        )
    return text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n").strip()


def _check_shapes(annotation: Annotation) -> None:
    if not all(0 <= nag <= NAG_MAX for nag in annotation.nags):
        raise AnnotationInvalid("a numeric annotation glyph must be a number from 0 to 255")
    if annotation.clock_s is not None and not 0 <= annotation.clock_s * 1000 <= _CLOCK_MS_MAX:
        raise AnnotationInvalid("clock_s must be a number of seconds from 0 to under 1,000 hours")
    if not all(map(_ARROW.fullmatch, annotation.arrows)):
        raise AnnotationInvalid("an arrow must be a colour (R, G, Y, B) and two squares, as in Ge2e4")
    if not all(map(_CIRCLE.fullmatch, annotation.circles)):
        raise AnnotationInvalid("a circle must be a colour (R, G, Y, B) and a square, as in Rd4")


def _commands_of(text: str, clock_s: float | None) -> tuple[str, float | None, list[str], list[str]]:
    """Remove clock, arrow and circle commands from *text*.

    A clock command stays in the text if *clock_s* is not None, after the first clock, and for 1,000 hours or
    more. An arrow command stays if an arrow begins and ends on one square.

    Returns:
        The remaining text; *clock_s*, or, if None, the clock of the text in seconds; the arrows; the circles.

    Raises:
        AnnotationInvalid: `_COMMANDS_NESTED_MAX` or more commands are inside one another.
    """
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
    """Join the pieces between removed commands, with a line break where the text had one, else a space."""
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
    """Return the seconds of *clock*, ``h:mm:ss.mmm``; None for 1,000 hours or more."""
    hours, minutes, seconds = clock.split(":")
    clock_ms = int(hours) * 3_600_000 + int(minutes) * 60_000 + round(float(seconds) * 1000)
    return clock_ms / 1000 if clock_ms <= _CLOCK_MS_MAX else None


def _clock(clock_s: float) -> str:
    seconds, milliseconds = divmod(round(clock_s * 1000), 1000)
    shown = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{shown}.{milliseconds:03}".rstrip("0") if milliseconds else shown
