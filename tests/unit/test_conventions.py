"""Conventions of the code that no linter checks."""

import ast
import gc
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 40
NAME_CHARS_MAX = 70
PRONOUN_LINES_MAX = 40
PRONOUN = re.compile(
    r"\b(nobody|somebody|everybody|whoever|anybody|anyone|someone|everyone|who|whom)\b", re.IGNORECASE
)
#: Phrases of novels, the changelog of earlier names, released migrations, and copies of docstrings.
PROSE_OF_PEOPLE = re.compile(
    r"^CHANGELOG\.md$|/muse/|migrations?/|^infrastructure/docker/init/|^docs/reference/python/|test_conventions\.py$"
)
Function = ast.FunctionDef | ast.AsyncFunctionDef

#: ``rule path[:name]`` and the reason of the exception. An exception that is not needed fails its test.
EXCEPTIONS: dict[str, str] = {
    "file infrastructure/docker/init/postgres/20-migration-event-sourcing.sql": "generated: all migrations",
    "sql packages/relaybox/src/relaybox/db/_migrations.py": "the version table's name is part of a file",
}

SQL = re.compile(
    r"\b(SELECT\s.+\sFROM\s|SELECT\s+\w+\(|INSERT\s+INTO\s|UPDATE\s+\w+(\s+AS\s+\w+)?\s+SET\s|DELETE\s+FROM\s)",
    re.DOTALL,
)
#: Paths and hosts of development machines; built from parts, so that this file does not match.
MACHINE = re.compile(
    "|".join(
        [
            "/" + "root/",
            "/" + "work/",
            "/" + r"home/(?!runner\b)[a-z]+",
            "pypi" + r"\.org",
            "files\\.python" + "hosted",
        ]
    )
)


@cache
def tracked() -> tuple[Path, ...]:
    """Return every file of the project that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return tuple(path for name in listed if (path := ROOT / name).is_file())


def modules(part: str = "") -> list[Path]:
    """Return the Python files; with *part* ``src`` only those of the packages."""
    found = [path for path in tracked() if path.suffix == ".py"]
    return [path for path in found if not part or part in path.relative_to(ROOT).parts]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """Return every node of the file; cached, because several tests use them."""
    return tuple(ast.walk(tree_of(path)))


@pytest.fixture(scope="module", autouse=True)
def _syntax_trees_are_released() -> Iterator[None]:
    """Release millions of small objects, which would slow down every garbage collection."""
    gc.disable()
    yield
    nodes_of.cache_clear()
    tree_of.cache_clear()
    gc.enable()


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def check(rule: str, violations: Iterator[str]) -> None:
    """Fail for violations of *rule* without an exception, and for exceptions that are not needed."""
    found = set(violations)
    excepted = {entry.removeprefix(f"{rule} ") for entry in EXCEPTIONS if entry.startswith(f"{rule} ")}
    assert not found - excepted, f"{rule}: " + "; ".join(sorted(found - excepted))
    assert not excepted - found, f"exceptions that are not needed; delete them: {sorted(excepted - found)}"


def own_lines(function: Function) -> int:
    """Return the lines of a function without its docstring and its nested functions."""
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        lines -= first.end_lineno - first.lineno + 1
    nested = (one for one in ast.walk(function) if one is not function and isinstance(one, Function))
    return lines - sum(own_lines(one) for one in nested)


def test_files_have_at_most_400_lines() -> None:
    check(
        "file",
        (
            name_of(path)
            for path in tracked()
            if path.suffix in {".py", ".sql"} and len(path.read_text().splitlines()) > FILE_LINES_MAX
        ),
    )


def test_functions_have_at_most_40_lines() -> None:
    check(
        "function",
        (
            f"{name_of(path)}:{node.name}"
            for path in modules()
            for node in nodes_of(path)
            if isinstance(node, Function)
            # A fast check first: own_lines() walks the function.
            and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
            and own_lines(node) > FUNCTION_LINES_MAX
        ),
    )


def test_test_names_have_at_most_70_characters() -> None:
    check(
        "test name",
        (
            f"{name_of(path)}:{node.name}"
            for path in modules()
            for node in nodes_of(path)
            if isinstance(node, Function)
            and node.name.startswith("test_")
            and len(node.name) > NAME_CHARS_MAX
        ),
    )


def test_texts_use_no_pronoun_for_a_component() -> None:
    # A pronoun may stand for a person. More lines than these few come from "who" for a process or a row.
    texts = {".md", ".py", ".sql", ".toml", ".yml"}
    paths = [path for path in tracked() if path.suffix in texts and not PROSE_OF_PEOPLE.search(name_of(path))]
    lines = [
        f"{name_of(path)}: {line.strip()}"
        for path in paths
        for line in path.read_text(encoding="utf-8").splitlines()
        if PRONOUN.search(line)
    ]
    assert len(lines) <= PRONOUN_LINES_MAX, "\n".join(lines)


def documented_methods(module: ast.Module) -> set[str]:
    """Return the names of documented methods; overriding methods inherit the documentation."""
    classes = [node for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    methods = [node for one in classes for node in one.body if isinstance(node, Function)]
    return {node.name for node in methods if ast.get_docstring(node)}


def has_route_summary(node: ast.ClassDef | Function) -> bool:
    """Whether *node* is a route handler with ``summary=``; OpenAPI would publish its docstring."""
    calls = [one for one in node.decorator_list if isinstance(one, ast.Call)]
    return any(keyword.arg == "summary" for call in calls for keyword in call.keywords)


def undocumented(body: list[ast.stmt], prefix: str, inherited: set[str]) -> Iterator[str]:
    overloads = {"overload", "typing.overload"}
    for node in body:
        if not isinstance(node, (ast.ClassDef, *Function.__args__)) or node.name.startswith("_"):
            continue
        if overloads & {ast.unparse(one) for one in node.decorator_list} or has_route_summary(node):
            continue
        if ast.get_docstring(node) is None and not (prefix and node.name in inherited):
            yield f"{prefix}{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node.body, f"{prefix}{node.name}.", inherited)


def test_public_names_have_docstrings() -> None:
    check(
        "docstring",
        (
            f"{name_of(path)}:{name}"
            for path in modules("src")
            for name in ([] if ast.get_docstring(tree_of(path)) or not tree_of(path).body else ["module"])
            + list(undocumented(tree_of(path).body, "", documented_methods(tree_of(path))))
        ),
    )


def test_sql_is_in_sql_files() -> None:
    check(
        "sql",
        (
            name_of(path)
            for path in modules("src")
            for node in nodes_of(path)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value)
        ),
    )


@pytest.mark.parametrize(
    "text", ["SELECT a\nFROM b ", "INSERT INTO a ", "UPDATE a AS b SET c", "SELECT f(1) "]
)
def test_sql_pattern_matches_statements(text: str) -> None:
    assert SQL.search(text)


@pytest.mark.parametrize("text", ["Select a theme from the list", "Update the client, set it up again"])
def test_sql_pattern_ignores_prose(text: str) -> None:
    assert not SQL.search(text)


#: Python before 3.11.5 loses matches of possessively repeated groups (python/cpython#106052).
POSSESSIVE_GROUP = re.compile(r"\)(?:[*+?]|\{[\d,]+\})" + r"\+")


def test_patterns_repeat_no_group_possessively() -> None:
    check(
        "possessive",
        (
            f"{name_of(path)}:{node.lineno}"
            for path in modules("src")
            for node in nodes_of(path)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and POSSESSIVE_GROUP.search(node.value)
        ),
    )


def test_packages_declare_public_names() -> None:
    check(
        "all",
        (
            name_of(path)
            for path in modules("src")
            if path.name == "__init__.py" and len(tree_of(path).body) > 1 and not declares_all(path)
        ),
    )


def declares_all(path: Path) -> bool:
    targets = [node.targets for node in tree_of(path).body if isinstance(node, ast.Assign)]
    return any(isinstance(one, ast.Name) and one.id == "__all__" for target in targets for one in target)


def test_private_modules_are_imported_only_by_their_package() -> None:
    check(
        "private",
        (
            f"{name_of(path)}:{node.lineno}"
            for path in modules("src")
            for node in nodes_of(path)
            if isinstance(node, ast.ImportFrom) and imports_private_module(path, node.module or "")
        ),
    )


def imports_private_module(path: Path, module: str) -> bool:
    package, dot, private = module.partition("._")
    here = ".".join(path.relative_to(ROOT).parts)
    return bool(dot and private) and package.startswith(("relaybox", "backend")) and package not in here


def test_files_name_no_development_machine() -> None:
    check(
        "machine",
        (
            f"{name_of(path)}:{number}"
            for path in tracked()
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
            if MACHINE.search(line)
        ),
    )
