"""The pages that build the bank give the files of ``examples/bank``, and its tests pass."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

from relaybox import pytest_plugin

from tests.fixtures.bank import BANK
from tests.fixtures.bounds import READY_S
from tests.fixtures.doc_files import blocks_of, typed_script

HOW_TO = Path(__file__).parents[2] / "docs/how-to"
PAGES = [
    HOW_TO / f"{name}.md"
    for name in ("write-a-domain", "write-a-consumer", "test-your-application", "write-a-flow")
]
TESTS_PAGE = PAGES[2]


def build(directory: Path, *pages: Path) -> None:
    """Write the files of *pages* to *directory*."""
    script = typed_script(block for block in blocks_of(*pages) if block.language != "sh")
    subprocess.run(["bash", "-e"], input=script, cwd=directory, text=True, check=True, capture_output=True)


def run(script: str, directory: Path) -> str:
    """Type *script* in *directory*, and return the output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-eu"],
        input=script,
        # Schemathesis is no package of a user; its plugin takes 1 to 2 s to load.
        env={**environment, "PATH": path, "PYTEST_ADDOPTS": "-p no:schemathesis"},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=READY_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def files_in(directory: Path) -> dict[str, str]:
    """Return the sources in *directory* by their relative paths."""
    found = [path for path in directory.rglob("*") if path.suffix in {".py", ".ini"}]
    return {str(path.relative_to(directory)): path.read_text(encoding="utf-8") for path in found}


def test_files_of_the_pages_are_those_of_the_example(tmp_path: Path) -> None:
    build(tmp_path, *PAGES)
    assert files_in(tmp_path) == files_in(BANK)


def test_tests_of_the_bank_pass_as_the_page_says(tmp_path: Path) -> None:
    build(tmp_path, *PAGES[: PAGES.index(TESTS_PAGE) + 1])
    blocks = list(blocks_of(TESTS_PAGE))
    typed = "".join(one.text for one in blocks if one.language == "sh" and "pip install" not in one.text)
    expected = "".join(one.text for one in blocks if one.language == "text")
    assert without_times(run(typed, tmp_path)) == without_times(expected)


def test_tests_of_the_flow_pass_beside_those_of_the_bank(tmp_path: Path) -> None:
    build(tmp_path, *PAGES)
    assert "passed" in run("pytest -q", tmp_path)


def test_page_lists_the_fixtures_of_the_plugin() -> None:
    _, _, table = TESTS_PAGE.read_text(encoding="utf-8").partition("\n## The fixtures\n")
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row.split(" | ")[0])}
    plugin = ast.parse(Path(pytest_plugin.__file__).read_text(encoding="utf-8"))
    functions = [one for one in plugin.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert listed == {one.name for one in functions if not one.name.startswith("_")}


def without_times(text: str) -> str:
    return re.sub(r" in \d+\.\d\ds(?: \(\d:\d\d:\d\d\))?$", "", text, flags=re.MULTILINE)
