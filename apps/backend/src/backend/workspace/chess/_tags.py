"""Parse and write the tag pairs (headers) of a game."""

import re
from dataclasses import dataclass, field
from typing import Final

from backend.workspace.chess._comments import TAG_NAME
from backend.workspace.chess._headers import HEADER_CHARS_MAX
from backend.workspace.chess._source import FORUM_TAG
from backend.workspace.errors import quoted

__all__ = ("Tags", "format_tag", "read_tags")

#: A tag pair; a line may have several (PGN standard, 8.1).
_PAIR: Final = re.compile(
    rf'[ \t]*\[\s*({TAG_NAME})\s+"([^"\\]*+(?:\\.[^"\\]*+){{0,{HEADER_CHARS_MAX}}})"\s*\]\s*'
)
_NAME: Final = re.compile(TAG_NAME)
_ESCAPE: Final = re.compile(r'\\(["\\])')


@dataclass(slots=True, kw_only=True)
class Tags:
    """The tag pairs of one game."""

    headers: dict[str, str] = field(default_factory=dict[str, str])
    #: The offset of each tag pair, by name.
    offsets: dict[str, int] = field(default_factory=dict[str, int])
    #: Lines between tag pairs that are comments (they begin with a semicolon), with their offsets.
    comments: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    #: Names that occur again with another value, with their offsets.
    repeated: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    #: The offset after the tag pairs, where the moves begin.
    end: int
    #: Reason and offset if a tag pair is invalid, so that the game must be skipped; else None.
    problem: tuple[str, int] | None = None


def read_tags(text: str, at: int) -> Tags:
    """Parse the tag pairs of *text* from the offset *at* on; a game may have none.

    Empty lines between tag pairs are ignored. But if ``Event`` or a repeated name follows an empty line, that
    tag pair begins the next game, and this game has no moves. Of a name that is repeated otherwise, the last
    value is used.
    """
    tags = Tags(end=at)
    gap = False
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        line = text[at:end]
        blank = not line or line.isspace()
        if blank or (tags.headers and line[0] in "%;"):
            gap = gap or blank
            if line.startswith(";"):
                tags.comments.append((at, line[1:].strip()))
        else:
            pairs, behind = _pairs(line)
            if _end_before(line) or (gap and _begin_another(pairs, tags)):
                break
            _take(tags, line, pairs, at)
            gap = False
            # The text of the moves begins with the line end before it: its parser searches starts of lines.
            tags.end = at + behind
            if behind < len(line):
                break
        at = end + 1
    return tags


def format_tag(name: str, value: str) -> str:
    """Return one tag pair as PGN; quotation marks and backslashes are escaped."""
    value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'[{name} "{value}"]'


def _pairs(line: str) -> tuple[list[tuple[str, str]], int]:
    """Parse the tag pairs of *line*, also with bad or missing quotation marks.

    Returns:
        The pairs of name and value, empty if a tag pair is invalid; and the offset in the line after them.
    """
    pairs: list[tuple[str, str]] = []
    behind = 0
    while found := _PAIR.match(line, behind):
        pairs.append((found[1], _ESCAPE.sub(r"\1", found[2])))
        behind = found.end()
    rest = line[behind:].strip()
    if rest.startswith("[") or not pairs:
        behind = len(line)
        name, _, value = rest.strip("[] \t").partition(" ")
        value = value.strip()
        if rest.endswith("]") and _NAME.fullmatch(name) and value:
            pairs.append((name, value.removeprefix('"').removesuffix('"')))
        else:
            pairs.clear()
    return pairs, behind


def _end_before(line: str) -> bool:
    first = line.lstrip(" \t")
    return not first.startswith("[") or FORUM_TAG.match(first) is not None


def _begin_another(pairs: list[tuple[str, str]], tags: Tags) -> bool:
    return bool(tags.headers) and any(name == "Event" or name in tags.headers for name, _ in pairs)


def _take(tags: Tags, line: str, pairs: list[tuple[str, str]], at: int) -> None:
    for name, value in pairs:
        if tags.headers.setdefault(name, value) != value:
            tags.headers[name] = value
            tags.repeated.append((at, name))
    tags.offsets.update((name, at) for name, _ in pairs)
    if tags.problem is None and (why := _problem(line, pairs)):
        tags.problem = why, at


def _problem(line: str, pairs: list[tuple[str, str]]) -> str | None:
    if not pairs:
        return f'{quoted(line.strip())} is not a header; write a header as [Name "value"]'
    long = next((name for name, value in pairs if len(value) > HEADER_CHARS_MAX), None)
    return long and f"the header {long} has more than {HEADER_CHARS_MAX:,} characters"
