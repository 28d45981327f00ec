"""Compare the short benchmarks of two revisions in turns on one machine."""

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from _suite import SHORT_RUN_S_MAX, Checkout, Run, is_machine_independent, rises_with_quality, run_benchmark

__all__ = ("RevisionNotUsable", "checked_out", "compare")

#: A figure is reported as fallen if it is worse by more than this fraction.
FALL_MAX: Final = 0.05
_SETUP_S_MAX: Final = 900.0
#: Variables that `make` sets for its child processes, and that `make` of the other revision must not get.
_FROM_MAKE: Final = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "VIRTUAL_ENV")
#: Ratios between two programs that are not part of Relaybox.
_NOT_OURS: Final = ("ratio_bare_loop_to_producer",)


class RevisionNotUsable(Exception):
    """Raised when the other revision cannot be checked out or set up; the message has the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """One figure of a benchmark, for both revisions."""

    name: str
    #: Medians over the turns: of the other revision (*before*), and of the working tree (*now*).
    before: float
    now: float
    #: Median of the ratios of the turns, above 1 if *now* is better; None if one of the values is 0.
    ratio: float | None

    @property
    def has_verdict(self) -> bool:
        """True if the figure depends on the code more than on the machine."""
        return is_machine_independent(self.name) and self.name not in _NOT_OURS

    @property
    def fell(self) -> bool:
        """True if the figure is worse by more than 5 %; without a ratio, if it is worse at all."""
        if self.ratio is not None:
            return self.ratio < 1 - FALL_MAX
        return self.now < self.before if rises_with_quality(self.name) else self.now > self.before

    def __str__(self) -> str:
        ratio = "no ratio" if self.ratio is None else f"{self.ratio:.2f} x"
        verdict = ("fell by more than 5 %" if self.fell else "held") if self.has_verdict else ""
        return f"  {self.name:<44} {self.before:>12,g} {self.now:>12,g}  {ratio:>9}  {verdict}".rstrip()


@contextmanager
def checked_out(root: Path, revision: str) -> Generator[Checkout]:
    """Check *revision* out into a temporary work tree and set its environment up, for a ``with`` block.

    Raises:
        RevisionNotUsable: *revision* is not in the repository, or its ``make setup`` failed.
    """
    with tempfile.TemporaryDirectory(prefix="relaybox-compare-", ignore_cleanup_errors=True) as place:
        tree = Path(place) / "tree"
        _call(["git", "worktree", "add", "--quiet", "--detach", str(tree), revision], cwd=root)
        try:
            _call(["make", "setup"], cwd=tree)
            label = _call(["git", "rev-parse", "--short", "HEAD"], cwd=tree).strip()
            yield Checkout(label=label, root=tree, python=tree / ".venv" / "bin" / "python")
        finally:
            _call(["git", "worktree", "remove", "--force", str(tree)], cwd=root)


def _call(command: Sequence[str], *, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in _FROM_MAKE}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_SETUP_S_MAX,
        )
    except subprocess.TimeoutExpired as error:
        raise RevisionNotUsable(f"`{' '.join(command)}` did not end within {_SETUP_S_MAX:.0f} s") from error
    if done.returncode:
        raise RevisionNotUsable(f"`{' '.join(command)}` failed: {done.stdout.strip()[-1_000:]}")
    return done.stdout


def compare(
    before: Checkout, now: Checkout, names: Sequence[str], *, turns: int, limit_s: float
) -> tuple[int, int]:
    """Compare *names* in turns and print the figures of each as soon as it is measured.

    Args:
        before: The other revision.
        now: The working tree.
        names: Benchmarks of the working tree.
        turns: Number of runs of each benchmark by each revision.
        limit_s: Seconds for all runs. Then the current run is stopped, and the remaining benchmarks are
            reported as not compared.

    Returns:
        The number of figures that fell by more than 5 %, and the number of benchmarks that could not be
        compared.
    """
    until = time.monotonic() + limit_s
    fell, missing = 0, 0
    print(f"Figures: {before.label}, {now.label}, ratio (above 1: {now.label} is better); {turns} turns")
    for name in names:
        figures = _in_turns(before, now, name, turns=turns, until=until)
        if isinstance(figures, str):
            print(f"{name}: not compared: {figures}", flush=True)
            missing += 1
            continue
        print(f"{name}:")
        for figure in sorted(figures, key=lambda one: not one.has_verdict):
            print(figure)
            fell += figure.has_verdict and figure.fell
        print(end="", flush=True)
    print(f"{fell} figures fell by more than 5 %; {missing} benchmarks were not compared")
    return fell, missing


def _in_turns(
    before: Checkout, now: Checkout, name: str, *, turns: int, until: float
) -> list[Compared] | str:
    """Run one benchmark of both revisions in turns; return the figures, or the reason why there are none."""
    if name not in before.benchmarks():
        return f"{before.label} has no benchmark of this name"
    figures: dict[str, list[Mapping[str, Any]]] = {before.label: [], now.label: []}
    for turn in range(turns):
        for checkout in (before, now)[:: -1 if turn % 2 else 1]:
            left_s = until - time.monotonic()
            if left_s <= 0:
                return "the time limit was reached"
            run = run_benchmark(checkout, name, short=True, limit_s=min(left_s, SHORT_RUN_S_MAX))
            if reason := _reason(run):
                return f"{checkout.label}: {reason}"
            figures[checkout.label].append(run.figures)
    return list(compared(figures[before.label], figures[now.label])) or "the two have no figure in common"


def _reason(run: Run) -> str | None:
    return "skipped by the benchmark itself" if "skipped" in run.figures else run.failure


def compared(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> Iterator[Compared]:
    """Compare the figures that all turns of both revisions have; lists and strings are omitted."""
    for name in now[0]:
        old, new = ([_number(turn.get(name)) for turn in turns] for turns in (before, now))
        if None in old or None in new:
            continue
        pairs = [(one, other) for one, other in zip(old, new, strict=True) if one is not None and other]
        ratios = [other / one if rises_with_quality(name) else one / other for one, other in pairs if one]
        yield Compared(
            name=name,
            before=statistics.median(value for value in old if value is not None),
            now=statistics.median(value for value in new if value is not None),
            ratio=statistics.median(ratios) if len(ratios) == len(new) else None,
        )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
