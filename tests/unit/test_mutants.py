"""`make mutants` tries what it says, and takes no other failure for a defect that was noticed."""

import ast
from pathlib import Path

import pytest

from tests.mutants._mutants import Mutant, mutants
from tests.mutants._trial import ROOT, Outcome, judge

ALL = mutants()
REPORT = '<testsuite><testcase name="test_a"/><testcase name="test_b">{}</testcase></testsuite>'


def names_in(path: Path) -> set[str]:
    """Tests that *path* has."""
    found = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in found if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_a_mutants_text_is_there_once_and_its_tests_exist(mutant: Mutant) -> None:
    assert mutant.edits
    for edit in mutant.edits:
        assert edit.times_found(ROOT) == 1, f"{edit.file}: {edit.find}"
        assert edit.find != edit.replacement
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert name.partition("[")[0] in names_in(ROOT / file), test


def test_no_two_mutants_have_one_name() -> None:
    assert len({mutant.name for mutant in ALL}) == len(ALL)


def test_an_edit_changes_its_text_and_nothing_else(tmp_path: Path) -> None:
    for edit in ALL[0].edits:
        place = tmp_path / edit.file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text((ROOT / edit.file).read_text(encoding="utf-8"), encoding="utf-8")
        edit.apply(tmp_path)
        was, now = (ROOT / edit.file).read_text(encoding="utf-8"), place.read_text(encoding="utf-8")
        assert now.replace(edit.replacement, edit.find) == was != now


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
def test_only_a_failed_assertion_or_a_time_out_is_a_defect_noticed(child: str, outcome: Outcome) -> None:
    assert judge(REPORT.format(child))[0] is outcome


def test_a_run_without_tests_is_no_proof() -> None:
    assert judge("<testsuite/>") == (Outcome.BROKEN, "no test was run")
