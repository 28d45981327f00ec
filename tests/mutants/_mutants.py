"""Read ``mutants.toml`` and find the code that each edit names."""

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

__all__ = ("Edit", "Mutant", "Target", "mutants")

_FILE = Path(__file__).with_name("mutants.toml")
_SOURCES = ("packages/relaybox/src", "packages/shared-types/src", "apps/backend/src")


class Target(StrEnum):
    """The key of ``mutants.toml`` that names an edit's place."""

    #: ``package:Class.method``, in any module of the package.
    SYMBOL = "symbol"
    #: ``package:name``, a query in any ``.sql`` file of the package.
    QUERY = "query"
    #: A path, for migrations: released ones never change.
    FILE = "file"


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """Replace the one place that *pattern* matches within a symbol, a query or a file."""

    target: Target
    name: str
    #: Text in which any white space matches any other, and ``…`` matches any text.
    pattern: str
    replacement: str

    def matches(self, root: Path) -> list[tuple[Path, int, int]]:
        """Return file, start and end of each match below *root*; a usable edit has exactly one."""
        expression = ".*?".join(
            r"\s+".join(re.escape(word) for word in part.split()) for part in self.pattern.split("…")
        )
        return [
            (path, start + match.start(), start + match.end())
            for path, start, end in self._places(root)
            for match in re.finditer(expression, path.read_text(encoding="utf-8")[start:end], re.DOTALL)
        ]

    def apply(self, root: Path) -> Path:
        """Make the edit below *root* and return the changed file.

        Raises:
            ValueError: The pattern does not match exactly once.
        """
        [(path, start, end)] = self.matches(root)
        text = path.read_text(encoding="utf-8")
        path.write_text(text[:start] + self.replacement + text[end:], encoding="utf-8")
        return path

    def _places(self, root: Path) -> Iterator[tuple[Path, int, int]]:
        if self.target is Target.FILE:
            path = root / self.name
            yield path, 0, len(path.read_text(encoding="utf-8"))
            return
        package, _, name = self.name.partition(":")
        find, suffix = (_symbol, "py") if self.target is Target.SYMBOL else (_query, "sql")
        for source in _SOURCES:
            for path in sorted((root / source / package.replace(".", "/")).glob(f"*.{suffix}")):
                if span := find(path.read_text(encoding="utf-8"), name):
                    yield path, *span


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    """A defect that the suite must notice."""

    name: str
    #: The guarantee that it breaks.
    rule: str
    #: The wrong behaviour, in a few words.
    defect: str
    edits: tuple[Edit, ...]
    #: Node ids, the fastest first: at least one must fail.
    tests: tuple[str, ...]


def mutants() -> list[Mutant]:
    """Return all mutants in the order of the file."""
    entries = tomllib.loads(_FILE.read_text(encoding="utf-8"))["mutant"]
    return [
        Mutant(
            **{name: entry[name] for name in ("name", "rule", "defect")},
            edits=tuple(_edit(edit) for edit in entry["edits"]),
            tests=tuple(entry["tests"]),
        )
        for entry in entries
    ]


def _edit(entry: dict[str, str]) -> Edit:
    [target] = [target for target in Target if target in entry]
    return Edit(
        target=target,
        name=entry[target],
        pattern=entry["pattern"],
        replacement=entry["replacement"],
    )


def _symbol(text: str, name: str) -> tuple[int, int] | None:
    """Return start and end of the definition of *name* in a module's *text*."""
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        found = [
            child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and child.name == part
        ]
        if not found:
            return None
        node = found[-1]
    assert isinstance(node, ast.stmt)
    lines = text.splitlines(keepends=True)
    return sum(map(len, lines[: node.lineno - 1])), sum(map(len, lines[: node.end_lineno]))


def _query(text: str, name: str) -> tuple[int, int] | None:
    """Return start and end of the query *name* in the *text* of a ``.sql`` file."""
    match = re.search(rf"^-- name: {re.escape(name)}$.*?(?=^-- name: |\Z)", text, re.MULTILINE | re.DOTALL)
    return match and match.span()
