"""Run benchmarks in separate processes, read their figures, and write those of full runs to files.

A benchmark is a script ``benchmarks/<name>.py`` whose name begins with a letter. It takes ``--short`` and
prints one JSON object of figures as the last line of its standard output.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = (
    "SHORT_RUN_S_MAX",
    "Checkout",
    "Run",
    "is_machine_independent",
    "rises_with_quality",
    "run_benchmark",
    "run_benchmarks",
)

#: Seconds after which a short form is stopped. A short form takes up to two minutes on two idle cores.
SHORT_RUN_S_MAX: Final = 600.0
FULL_RUN_S_MAX: Final = 7_200.0
_STOP_S: Final = 20.0
#: Parts of the names of figures that depend little on the machine: counts, and ratios within one run.
_INDEPENDENT: Final = (
    *("ratio", "round_trips_per_", "wal_bytes_per_", "dead_tuples_per_", "idle_queries_per_s"),
    *("identical", "emptied", "speedup"),
)
#: Parts of the names of figures for which higher is better: ratios (Relaybox to the other program) and rates.
#: Other figures are costs.
_GAINS: Final = ("ratio", "_per_s", "identical", "emptied", "speedup")
_COSTS: Final = ("idle_queries_per_s",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkout:
    """The files of a revision, with a Python environment."""

    #: Name in reports: a revision, or "working tree".
    label: str
    root: Path
    #: The interpreter of the environment.
    python: Path

    def benchmarks(self) -> list[str]:
        """Return the names of the benchmarks, sorted."""
        return sorted(path.stem for path in (self.root / "benchmarks").glob("[a-z]*.py"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The result of one run of one benchmark."""

    #: Empty if the run failed.
    figures: Mapping[str, Any] = field(default_factory=dict[str, Any])
    #: Reason why there are no figures; None if the run succeeded.
    failure: str | None = None
    seconds: float
    output: str


def run_benchmark(checkout: Checkout, name: str, *, short: bool, limit_s: float) -> Run:
    """Run one benchmark and read its figures.

    Args:
        checkout: The revision to run.
        name: The benchmark, without ``.py``.
        short: Whether to run the short form.
        limit_s: Seconds after which the run is stopped.

    Returns:
        The figures, or the reason why there are none. An error of the benchmark does not raise.
    """
    command = [str(checkout.python), f"benchmarks/{name}.py", *(["--short"] if short else [])]
    environment = {
        **os.environ,
        # Put the programs of the revision's environment first, as `make` does.
        "PATH": os.pathsep.join([str(checkout.python.parent), os.environ.get("PATH", os.defpath)]),
    }
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=checkout.root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    failure: str | None = None
    try:
        printed, errors = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        failure = f"stopped because it was still running after {limit_s:.0f} s"
        printed, errors = _stop(process)
    except BaseException:
        _stop(process)
        raise
    figures = _figures_in(printed)
    if failure is None and process.returncode:
        failure = f"exit code {process.returncode}: {_last_line(errors or printed)}"
    if failure is None and figures is None:
        failure = f"the last line is no JSON object of figures: {_last_line(printed)}"
    return Run(
        figures={} if failure or figures is None else figures,
        failure=failure,
        seconds=time.monotonic() - began,
        output=errors + printed,
    )


def _stop(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Interrupt a benchmark so that it stops its servers; kill remaining processes.

    Returns:
        What the benchmark wrote to standard output and to standard error; empty if it does not end.
    """
    for number in (signal.SIGINT, signal.SIGKILL):
        os.killpg(process.pid, number)
        try:
            return process.communicate(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            continue
    return "", ""


def _figures_in(output: str) -> dict[str, Any] | None:
    lines = output.strip().splitlines()
    try:
        figures = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return figures if isinstance(figures, dict) else None


def _last_line(output: str) -> str:
    return next(reversed(output.strip().splitlines()), "no output")[:200]


def is_machine_independent(name: str) -> bool:
    """Return whether the figure *name* can be compared between machines."""
    return any(part in name for part in _INDEPENDENT)


def rises_with_quality(name: str) -> bool:
    """Return whether higher is better for the figure *name*: True for ratios and rates, False for costs."""
    return any(part in name for part in _GAINS) and not any(part in name for part in _COSTS)


def run_benchmarks(checkout: Checkout, names: Sequence[str], *, short: bool) -> list[str]:
    """Run *names* one after the other and print their output; full runs write their results file.

    Returns:
        The names of the benchmarks that failed.
    """
    failed: list[str] = []
    for name in names:
        print(f"benchmarks/{name}.py{' --short' if short else ''}", flush=True)
        limit_s = SHORT_RUN_S_MAX if short else FULL_RUN_S_MAX
        run = run_benchmark(checkout, name, short=short, limit_s=limit_s)
        print(run.output, end="")
        print(f"{name}: {run.failure or 'passed'} ({run.seconds:.0f} s)\n", flush=True)
        if run.failure:
            failed.append(name)
        elif not short and "skipped" not in run.figures:
            _write_results(checkout, name, run)
    return failed


def _write_results(checkout: Checkout, name: str, run: Run) -> None:
    """Write ``benchmarks/results/<name>.json``, figures that depend little on the machine first."""
    independent = {key: value for key, value in run.figures.items() if is_machine_independent(key)}
    document = {
        "benchmark": name,
        "revision": checkout.label,
        "cores": os.cpu_count(),
        "machine_independent": independent,
        "machine_dependent": {key: run.figures[key] for key in run.figures if key not in independent},
    }
    path = checkout.root / "benchmarks" / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"wrote {path.relative_to(checkout.root)}")
