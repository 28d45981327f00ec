"""Seeded defects match the sources, and only a failed assertion counts as caught."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.bounds import WAIT_S
from tests.mutants._mutants import Edit, Mutant, Target, mutants
from tests.mutants._trial import ROOT, Outcome, judge

ALL = mutants()
REPORT = '<testsuite><testcase name="test_a"/><testcase name="test_b">{}</testcase></testsuite>'


def names_in(path: Path) -> set[str]:
    """Return the names of all functions in *path*."""
    found = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in found if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_mutant_matches_the_sources_once_and_its_tests_exist(mutant: Mutant) -> None:
    assert mutant.edits
    for edit in mutant.edits:
        assert len(edit.matches(ROOT)) == 1, f"{edit.name}: {edit.pattern}"
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert name.partition("[")[0] in names_in(ROOT / file), test


def test_edited_sources_use_only_names_that_they_define(tmp_path: Path) -> None:
    """A mutant that ends with a NameError would prove nothing."""
    for mutant in ALL:
        root = tmp_path / mutant.name
        for edit in mutant.edits:
            [(path, _, _)] = edit.matches(ROOT)
            copy = root / path.relative_to(ROOT)
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
        for edit in mutant.edits:
            edit.apply(root)
    options = ["--isolated", "--no-cache", "--quiet", "--select=F821", "--target-version=py311"]
    command = [sys.executable, "-m", "ruff", "check", *options, "--output-format=concise", str(tmp_path)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_names_of_mutants_are_unique() -> None:
    assert len({mutant.name for mutant in ALL}) == len(ALL)


PYTHON = """
class Loop:
    def run(self) -> None:
        self.poll(1)

    def stop(self) -> None:
        self.poll(1)
"""
SQL = "-- name: take\nSELECT 1;\n-- name: give\nSELECT 1;\n"
STOPPED = "    def stop(self) -> None:\n        pass"
STOP = "    def stop(self) -> None:\n        self.poll(1)"


@pytest.mark.parametrize(
    ("target", "name", "pattern", "before", "after"),
    [
        (
            Target.SYMBOL,
            "Loop.stop",
            "self.poll(1)",
            PYTHON,
            PYTHON.removesuffix("self.poll(1)\n") + "pass\n",
        ),
        (Target.SYMBOL, "Loop.stop", "def … poll(1)", PYTHON, PYTHON.replace(STOP, "    pass")),
        (Target.QUERY, "give", "SELECT\n 1;", SQL, SQL.removesuffix("SELECT 1;\n") + "pass\n"),
    ],
    ids=["symbol", "gap", "query"],
)
def test_edit_replaces_the_match_within_its_target_only(
    target: Target, name: str, pattern: str, before: str, after: str, tmp_path: Path
) -> None:
    path = tmp_path / f"packages/relaybox/src/relaybox/relay/code.{'sql' if before is SQL else 'py'}"
    path.parent.mkdir(parents=True)
    path.write_text(before, encoding="utf-8")
    edit = Edit(target=target, name=f"relaybox.relay:{name}", pattern=pattern, replacement="pass")
    assert edit.apply(tmp_path) == path
    assert path.read_text(encoding="utf-8") == after


@pytest.mark.parametrize(
    ("child", "outcome"),
    [
        ("", Outcome.SURVIVED),
        ('<failure message="AssertionError: late&#10;assert 1 == 2"/>', Outcome.CAUGHT),
        ('<failure message="assert 1 == 2"/>', Outcome.CAUGHT),
        ('<failure message="TimeoutError"/>', Outcome.CAUGHT),
        ("<failure message=\"NameError: name 'waiting' is not defined\"/>", Outcome.BROKEN),
        ('<error message="AssertionError: the server did not start"/>', Outcome.BROKEN),
        ('<skipped message="no Kafka"/>', Outcome.BROKEN),
    ],
)
def test_only_assertion_and_time_out_count_as_caught(child: str, outcome: Outcome) -> None:
    assert judge(REPORT.format(child))[0] is outcome


def test_run_without_tests_is_broken() -> None:
    assert judge("<testsuite/>") == (Outcome.BROKEN, "no test was run")
