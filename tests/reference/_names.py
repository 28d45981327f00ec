"""Find the public names of the library in its sources, which are parsed and not imported."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import griffe

__all__ = ("Kind", "PublicModule", "PublicName", "comment_above", "methods_of", "public_modules")

_ROOT = Path(__file__).parents[2]
_SOURCES = {"relaybox": "packages/relaybox/src", "relaybox_types": "packages/types/src"}
_COMMENT = "#:"


class Kind(StrEnum):
    """What a public name stands for."""

    CLASS = "class"
    FUNCTION = "function"
    CONSTANT = "constant"


@dataclass(frozen=True, kw_only=True, slots=True)
class PublicName:
    """A name in ``__all__`` of a public module."""

    name: str
    #: Name of the module that exports it.
    module: str
    kind: Kind
    #: The definition: ``griffe.Class``, ``griffe.Function`` or ``griffe.Attribute``.
    defined: Any

    @property
    def heading(self) -> str:
        """The heading of its section."""
        match self.kind:
            case Kind.CLASS:
                return f"class {self.name}"
            case Kind.FUNCTION:
                return f"{self.name}()"
            case Kind.CONSTANT:
                return self.name

    @property
    def documentation(self) -> str:
        """Its docstring, or the comment ``#:`` above a constant; empty without one."""
        docstring = self.defined.docstring
        return docstring.value if docstring is not None else comment_above(self.defined)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublicModule:
    """A module with ``__all__`` and no underscore in its path."""

    path: str
    docstring: str
    names: tuple[PublicName, ...]


@cache
def public_modules() -> tuple[PublicModule, ...]:
    """Return the public modules by path, each with its names in alphabetical order."""
    loader = griffe.GriffeLoader(search_paths=[_ROOT / source for source in _SOURCES.values()])
    packages = [loader.load(name) for name in _SOURCES]
    loader.resolve_aliases(external=False)
    found = [_public(module) for package in packages for module in _walk(package)]
    return tuple(sorted((module for module in found if module.names), key=lambda module: module.path))


def comment_above(defined: Any) -> str:
    """Return the comment ``#:`` in the lines above a definition; empty without one."""
    lines = defined.module.lines
    found: list[str] = []
    for line in reversed(lines[: defined.lineno - 1]):
        if not line.strip().startswith(_COMMENT):
            break
        found.insert(0, line.strip().removeprefix(_COMMENT).strip())
    return "\n".join(found)


def methods_of(defined: Any) -> list[Any]:
    """Return the public methods that a class defines itself; none for a function or a constant."""
    if not defined.is_class:
        return []
    return [each for key, each in defined.members.items() if each.is_function and not key.startswith("_")]


def _walk(module: Any) -> Iterator[Any]:
    yield module
    for name, member in sorted(module.members.items()):
        if not member.is_alias and member.is_module and not name.startswith("_"):
            yield from _walk(member)


def _public(module: Any) -> PublicModule:
    exported = sorted({str(name) for name in module.exports or ()}, key=lambda name: (name.lower(), name))
    return PublicModule(
        path=module.path,
        docstring=module.docstring.value if module.docstring is not None else "",
        names=tuple(_name(module, name) for name in exported),
    )


def _name(module: Any, name: str) -> PublicName:
    member = module.members[name]
    defined = member.final_target if member.is_alias else member
    kind = Kind.CLASS if defined.is_class else Kind.FUNCTION if defined.is_function else Kind.CONSTANT
    return PublicName(name=name, module=module.path, kind=kind, defined=defined)
