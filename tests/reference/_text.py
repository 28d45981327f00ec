"""Convert docstrings to Markdown: reStructuredText roles to links, sections to lists."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import griffe

__all__ = ("anchor_of", "markdown_of_docstring", "paragraphs")

_ROLE = re.compile(r":(?:class|meth|func|mod|data|attr|exc):`(~?)([^`]+)`")
_CODE = re.compile(r"``(.+?)``", re.DOTALL)
_LITERAL_BLOCK = re.compile(r"(?:^|(?<=\S))::\n\n((?:    .*\n|\n)+)", re.MULTILINE)
_OPTIONS: dict[str, Any] = {"warn_unknown_params": False, "warnings": False}
_TITLES = {"parameters": "Arguments", "returns": "Returns", "yields": "Yields", "raises": "Raises"}
Links = Mapping[str, str]


def anchor_of(heading: str) -> str:
    """Return the anchor that GitHub generates for *heading*."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def paragraphs(text: str, links: Links) -> str:
    """Return *text* as Markdown.

    Args:
        text: Text of a docstring.
        links: Link target by the name of a class, function or module, with and without its module.
    """

    def link(match: re.Match[str]) -> str:
        short, name = match[1], match[2].strip().removesuffix("()")
        shown = name.rpartition(".")[2] if short else name.removeprefix(".")
        target = links.get(name) or links.get(name.rpartition(".")[0])
        return f"[`{shown}`]({target})" if target else f"`{shown}`"

    def block(match: re.Match[str]) -> str:
        lines = [line.removeprefix("    ") for line in match[1].rstrip("\n").splitlines()]
        return "\n".join(["\n\n```text", *lines, "```", "", ""])

    text = _LITERAL_BLOCK.sub(block, text + "\n")
    return _CODE.sub(r"`\1`", _ROLE.sub(link, text)).strip()


def markdown_of_docstring(docstring: Any, links: Links) -> Iterator[str]:
    """Return the paragraphs and lists of a docstring in Google's style, as ``griffe.Docstring``."""
    for section in docstring.parse(griffe.Parser.google, **_OPTIONS):
        if section.kind is griffe.DocstringSectionKind.text:
            yield paragraphs(section.value, links)
        elif section.kind is griffe.DocstringSectionKind.admonition:  # a section with a title of its own
            yield f"**{section.title}**"
            lines = paragraphs(section.value.description, links).splitlines()
            yield "\n".join(f"* {line}" for line in lines)
        elif section.kind.value in _TITLES:
            yield f"**{_TITLES[section.kind.value]}**"
            yield "\n".join(_item(section.kind.value, item, links) for item in section.value)
        else:
            raise ValueError(f"unknown section {section.kind.value!r} in {docstring.parent.path}")


def _item(kind: str, item: Any, links: Links) -> str:
    text = paragraphs(item.description, links).replace("\n", "\n  ")
    match kind:
        case "parameters":
            return f"* `{item.name}`: {text}"
        case "raises":
            name = str(item.annotation)
            target = links.get(name)
            return f"* [`{name}`]({target}): {text}" if target else f"* `{name}`: {text}"
        case _:
            return f"* {text}"
