"""One run of the suite's tests on a copy of the sources, with a defect or without."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from xml.etree import ElementTree

from tests.mutants._mutants import Edit

__all__ = ("ROOT", "Outcome", "Trial", "judge", "run")

ROOT = Path(__file__).parents[2]
#: Where the copy's own packages are; they come before those installed.
_SOURCES = (
    "packages/types/src",
    "packages/relaybox/src",
    "packages/shared-types/src",
    "apps/backend/src",
)
#: Longer than any test may take (pyproject.toml), and the start of the servers.
_RUN_S_MAX = 600.0
#: How a failure begins that says something about behaviour. Any other exception may come of an edit that does
#: not even run, and proves nothing.
_NOTICED = ("AssertionError", "assert ", "TimeoutError", "Failed: DID NOT RAISE")


class Outcome(StrEnum):
    """What the tests said."""

    CAUGHT = "caught"
    SURVIVED = "survived"
    #: Tests could not be run, or fell over something that is not what they assert.
    BROKEN = "broken"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A run's end."""

    outcome: Outcome
    #: The test that failed, or why there is none.
    by: str
    duration_s: float


def run(tests: Sequence[str], edits: Iterable[Edit]) -> Trial:
    """Run *tests* on a copy of the sources with *edits* made; they end with the first failure."""
    started_s = time.monotonic()
    with _copied() as (place, python):
        for edit in edits:
            edit.apply(place)
        report = place / "report.xml"
        options = ["-q", "-x", "-p", "no:cacheprovider", f"--junitxml={report}"]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            ended = subprocess.run(
                [python, "-m", "pytest", *options, *tests],
                cwd=place,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_RUN_S_MAX,
                check=False,
            )
        except subprocess.TimeoutExpired:
            outcome, by = Outcome.BROKEN, f"no end in {_RUN_S_MAX:g} s"
        else:
            if report.is_file():
                outcome, by = judge(report.read_text(encoding="utf-8"))
            else:
                outcome, by = Outcome.BROKEN, ended.stdout[-2_000:] + ended.stderr[-2_000:]
    return Trial(outcome=outcome, by=by, duration_s=time.monotonic() - started_s)


def judge(report: str) -> tuple[Outcome, str]:
    """What a JUnit *report* says, and which test, or what error, it was."""
    cases = list(ElementTree.fromstring(report).iter("testcase"))
    broken = "no test was run"
    for case in cases:
        failure = case.find("failure")
        fault = case.find("error") if failure is None else failure
        message = "" if fault is None else fault.get("message", "")
        if failure is not None and message.startswith(_NOTICED):
            return Outcome.CAUGHT, case.get("name", "")
        if fault is not None:
            broken = f"{case.get('name')}: {message[:500]}"
    passed = [case for case in cases if not len(case)]
    return (Outcome.SURVIVED, "") if cases and len(passed) == len(cases) else (Outcome.BROKEN, broken)


@contextmanager
def _copied() -> Generator[tuple[Path, Path]]:
    """The repository's files in a directory of their own, and a Python that imports from there.

    An environment and not ``PYTHONPATH``: relays that tests start in processes of their own are told
    theirs by the test.
    """
    place = Path(tempfile.mkdtemp(prefix="relaybox-mutant-"))
    try:
        place.chmod(0o755)  # as root PostgreSQL runs under another account
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, place / name)
        yield place, _python_for(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _python_for(place: Path) -> Path:
    directory = place / ".venv"
    venv.create(directory, symlinks=True)
    paths = [*(str(place / source) for source in _SOURCES), sysconfig.get_path("purelib")]
    inner = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (directory / "lib" / inner / "site-packages" / "copy.pth").write_text("\n".join(paths), encoding="utf-8")
    return directory / "bin" / "python"
