"""Run benchmarks, or compare their figures with those of another revision.

``python benchmarks run [--short] [NAME …]`` and ``python benchmarks compare REVISION [NAME …]``.
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from _compare import RevisionNotUsable, checked_out, compare
from _suite import Checkout, run_benchmarks


def working_tree() -> Checkout:
    """Return the checkout in the current directory, with the Python environment of this process."""
    command = ["git", "rev-parse", "--show-toplevel"]
    root = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return Checkout(label="working tree", root=Path(root), python=Path(sys.executable))


def revision_of(root: Path) -> str:
    """Return the checked-out revision of *root*, with ``-dirty`` if files differ from the revision."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def chosen(checkout: Checkout, names: Sequence[str]) -> list[str]:
    """Return *names*, or the names of all benchmarks if *names* is empty."""
    known = checkout.benchmarks()
    if unknown := sorted(set(names) - set(known)):
        raise SystemExit(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(known)}")
    return list(names) or known


def run(given: argparse.Namespace) -> int:
    """Run the benchmarks; return the exit code, 1 if a benchmark failed."""
    here = working_tree()
    labelled = Checkout(label=revision_of(here.root), root=here.root, python=here.python)
    failed = run_benchmarks(labelled, chosen(here, given.names), short=given.short)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def compare_with(given: argparse.Namespace) -> int:
    """Run the benchmarks of both revisions in turns, and compare their figures.

    Returns:
        The exit code: 0 if no figure fell by more than 5 %, 1 if a figure did, 2 if no figure did, but a
        benchmark could not be compared, 3 if the other revision could not be set up.
    """
    here = working_tree()
    names = chosen(here, given.names)
    try:
        with checked_out(here.root, given.revision) as before:
            fell, missing = compare(before, here, names, turns=given.turns, limit_s=given.limit_min * 60)
    except RevisionNotUsable as error:
        print(error, file=sys.stderr)
        return 3
    return 1 if fell else 2 if missing else 0


def main() -> int:
    """Parse the arguments, run the command, and return its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run", help="run benchmarks; full runs write benchmarks/results/NAME.json")
    running.add_argument("--short", action="store_true", help="the short forms, which write no results")
    running.set_defaults(work=run)
    comparing = commands.add_parser("compare", help="compare another revision with the working tree")
    comparing.add_argument("revision")
    comparing.add_argument("--turns", type=int, default=2, help="runs of each benchmark by each revision")
    comparing.add_argument("--limit-min", type=float, default=45.0, help="minutes for all runs together")
    comparing.set_defaults(work=compare_with)
    for command in (running, comparing):
        command.add_argument("names", nargs="*", metavar="NAME", help="a benchmark; by default all")
    given = parser.parse_args()
    # A shell starts a background process with SIGINT ignored, but SIGINT must stop the benchmarks.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return given.work(given)


if __name__ == "__main__":
    sys.exit(main())
