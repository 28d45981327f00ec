"""``python -m tests.mutants [NAME…]``: try each seeded defect; exit code 1 unless every one is caught."""

import argparse
import sys
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.mutants._mutants import Mutant, mutants
from tests.mutants._trial import ROOT, Outcome, run

_COLOURS = {Outcome.CAUGHT: "green", Outcome.SURVIVED: "red", Outcome.BROKEN: "red"}


def main() -> int:
    """Try the mutants that the arguments name, or all; return 0 if each is caught."""
    known = {mutant.name: mutant for mutant in mutants()}
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    names: list[str] = parser.parse_args().names or list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no such mutant: {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [known[name] for name in names]
    console = Console(highlight=False)
    if unusable := [message for mutant in chosen for message in _unusable_edits(mutant)]:
        console.print("\n".join(unusable), style="red")
        return 1
    return 0 if _unchanged_passes(chosen, console) and _try_all(chosen, console) else 1


def _unusable_edits(mutant: Mutant) -> list[str]:
    return [
        f"{mutant.name}: the pattern matches {len(edit.matches(ROOT))} times in {edit.name}, not once"
        for edit in mutant.edits
        if len(edit.matches(ROOT)) != 1
    ]


def _unchanged_passes(chosen: Iterable[Mutant], console: Console) -> bool:
    """Return whether the tests pass on unchanged sources; a failure would prove nothing otherwise."""
    tests = list(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
    trial = run(tests, [])
    passes = trial.outcome is Outcome.SURVIVED
    result = "[green]pass[/]" if passes else f"[red]fail[/] ({escape(trial.by)})"
    console.print(f"Without a defect the {len(tests)} tests {result} in {trial.duration_s:.0f} s")
    return passes


def _try_all(chosen: Iterable[Mutant], console: Console) -> bool:
    table = Table("defect", "rule", "what is wrong", title="Seeded defects")
    table.add_column("noticed by", overflow="fold")
    table.add_column("s", justify="right")
    caught = True
    for mutant in chosen:
        trial = run(mutant.tests, mutant.edits)
        outcome = f"[{_COLOURS[trial.outcome]}]{trial.outcome}[/]"
        console.print(f"{mutant.name}: {outcome} in {trial.duration_s:.0f} s {escape(trial.by)}")
        caught &= trial.outcome is Outcome.CAUGHT
        by = escape(trial.by) if trial.outcome is Outcome.CAUGHT else outcome
        table.add_row(mutant.name, mutant.rule, mutant.defect, by, f"{trial.duration_s:.0f}")
    console.print(table)
    return caught


if __name__ == "__main__":
    sys.exit(main())
