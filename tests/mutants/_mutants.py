"""What ``mutants.toml`` says."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

__all__ = ("Edit", "Mutant", "mutants")

_FILE = Path(__file__).with_name("mutants.toml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """One text of one file, which stands there once, and what it becomes."""

    #: Relative to the repository.
    file: str
    find: str
    replacement: str

    def times_found(self, root: Path) -> int:
        """How often the text stands in its file below *root*; 1 is right."""
        path = root / self.file
        return path.read_text(encoding="utf-8").count(self.find) if path.is_file() else 0

    def apply(self, root: Path) -> None:
        """Make the edit below *root*."""
        path = root / self.file
        path.write_text(
            path.read_text(encoding="utf-8").replace(self.find, self.replacement), encoding="utf-8"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    """A defect."""

    name: str
    #: The rule that it breaks.
    rule: str
    #: What is wrong with it.
    defect: str
    edits: tuple[Edit, ...]
    #: Node ids, the fastest first: at least one must fail.
    tests: tuple[str, ...]


def mutants() -> list[Mutant]:
    """All of them, in the order of the file."""
    entries = tomllib.loads(_FILE.read_text(encoding="utf-8"))["mutant"]
    return [
        Mutant(
            **{name: entry[name] for name in ("name", "rule", "defect")},
            edits=tuple(
                Edit(file=edit["file"], find=edit["find"], replacement=edit["replacement"])
                for edit in entry["edits"]
            ),
            tests=tuple(entry["tests"]),
        )
        for entry in entries
    ]
