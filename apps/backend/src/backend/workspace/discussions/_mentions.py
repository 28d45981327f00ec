"""Find the mentions in a text: ``@name`` in Markdown, outside of code.

A name is a user id, if it consists of letters, digits and ``_ . : | + -``. Existence and access of the user
are not checked: a mention gives no access, and the author must not learn whether the user exists.
"""

import re
from collections.abc import Iterator
from typing import Final

__all__ = ("MENTIONS_MAX", "find_mentions")

MENTIONS_MAX: Final = 50
"""Maximum number of different names in one text; further names are ignored."""

_SUBJECT_CHARS_MAX: Final = 255
_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_INDENTED: Final = re.compile(r" {4}| {0,3}\t")
_PARAGRAPHS: Final = re.compile(r"\n[ \t]*\n")
#: A code span: the same number of backticks at both ends (CommonMark, 6.1).
_SPAN: Final = re.compile(r"(?<![\\`])(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
#: A mention: not inside a word, an e-mail address or a URL, and not after a backslash.
_NAME: Final = re.compile(r"(?<![\w\\@/.])@(\w[\w.:|+-]*)")


def find_mentions(markdown: str) -> list[str]:
    """Return the mentioned names in *markdown*, each once, in their order."""
    paragraphs = _PARAGRAPHS.split("\n".join(_without_blocks(markdown)))
    prose = "\n\n".join(_SPAN.sub(" ", one) for one in paragraphs)
    names = (found.rstrip(".:|+-") for found in _NAME.findall(prose))
    return list(dict.fromkeys(name for name in names if len(name) <= _SUBJECT_CHARS_MAX))[:MENTIONS_MAX]


def _without_blocks(markdown: str) -> Iterator[str]:
    """Yield the lines of *markdown*, with empty lines instead of code blocks (CommonMark, 4.4 and 4.5)."""
    fence = ""
    # An indented line is code only after an empty line or after another line of code.
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
