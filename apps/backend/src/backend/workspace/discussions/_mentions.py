"""Who is named in a text: ``@name`` in Markdown, outside of code; pure.

A name is a token's subject, as far as its characters are letters, digits and ``_ . : | + -``. Nobody looks
whether there is such a user, or whether they may read the text: who is mentioned learns no more than they
may read, and who writes learns nothing about them.
"""

import re
from collections.abc import Iterator
from typing import Final

__all__ = ("MENTIONS_MAX", "find_mentions")

MENTIONS_MAX: Final = 50
"""Different names of one text; those after them are not kept."""

_SUBJECT_CHARS_MAX: Final = 255
_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_INDENTED: Final = re.compile(r" {4}| {0,3}\t")
_PARAGRAPHS: Final = re.compile(r"\n[ \t]*\n")
#: A code span: as many backticks at its end as at its beginning (CommonMark, 6.1).
_SPAN: Final = re.compile(r"(?<![\\`])(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
#: Not within a word or an address, nor behind a backslash.
_NAME: Final = re.compile(r"(?<![\w\\@/.])@(\w[\w.:|+-]*)")


def find_mentions(markdown: str) -> list[str]:
    """The names in *markdown*, each once, in the order in which they come."""
    paragraphs = _PARAGRAPHS.split("\n".join(_without_blocks(markdown)))
    prose = "\n\n".join(_SPAN.sub(" ", one) for one in paragraphs)
    names = (found.rstrip(".:|+-") for found in _NAME.findall(prose))
    return list(dict.fromkeys(name for name in names if len(name) <= _SUBJECT_CHARS_MAX))[:MENTIONS_MAX]


def _without_blocks(markdown: str) -> Iterator[str]:
    """The lines, those of blocks of code empty (CommonMark, 4.4 and 4.5)."""
    fence = ""
    # An indented line is code where no paragraph can go on: behind an empty line, or behind such a line.
    may_begin = True
    for line in markdown.splitlines():
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = ""
            yield ""
        elif mark and not (mark[1][0] == "`" and "`" in mark[2]):
            fence, may_begin = mark[1], True
            yield ""
        elif may_begin and _INDENTED.match(line):
            yield ""
        else:
            may_begin = not line.strip()
            yield line
