"""The house rules that no other tool checks.

What breaks one on purpose is listed with its reason, and the list may only shrink.
"""

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
Function = ast.FunctionDef | ast.AsyncFunctionDef

#: ``rule path[:name]`` to the reason. An entry that is not needed any more fails the suite: delete it.
EXCEPTIONS: dict[str, str] = {
    "file infrastructure/docker/init/postgres/20-migration-event-sourcing.sql": "generated: all migrations",
    "create_async_engine packages/relaybox/src/relaybox/db/_database.py": "it is that one place",
    "time.sleep packages/relaybox/src/relaybox/local/_watchdog.py": "a process of its own without a loop",
    "time.sleep tests/fixtures/product.py": "waits for what another process does and does not announce",
    "sql packages/relaybox/src/relaybox/db/_migrations.py": "the version table's name is part of a file",
}

#: A call and what to write instead; the second part says where it is banned.
BANNED_CALLS = {
    "datetime.utcnow": ("datetime.now(UTC): an aware time", ""),
    "datetime.utcfromtimestamp": ("datetime.fromtimestamp(at, UTC): an aware time", ""),
    "time.sleep": ("await what you wait for; asyncio.sleep where time itself is meant", ""),
    "print": ("structlog in a service, rich or typer in a command", "src"),
    "os.getenv": ("a field of a settings class", "src"),
    "asyncio.get_event_loop": ("asyncio.get_running_loop", ""),
    "create_async_engine": ("relaybox.db.Database, the one place that connects", "src"),
}
SQL = re.compile(
    r"\b(SELECT\s.+\sFROM\s|SELECT\s+\w+\(|INSERT\s+INTO\s|UPDATE\s+\w+(\s+AS\s+\w+)?\s+SET\s|DELETE\s+FROM\s)",
    re.DOTALL,
)
#: Paths and hosts of the machine that a text was written on; built from parts so as not to find itself.
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
    """Every file of the project: what git knows or would know."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return tuple(path for name in listed if (path := ROOT / name).is_file())


def modules(part: str = "") -> list[Path]:
    """Python files; *part* ``src`` keeps those of the packages themselves."""
    found = [path for path in tracked() if path.suffix == ".py"]
    return [path for path in found if not part or part in path.relative_to(ROOT).parts]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """Every node of the file: several rules ask for all of them."""
    return tuple(ast.walk(tree_of(path)))


@cache
def calls_in(path: Path) -> frozenset[str]:
    """Names of what the file calls, as far as they are names."""
    called = (node.func for node in nodes_of(path) if isinstance(node, ast.Call))
    return frozenset(ast.unparse(one) for one in called if isinstance(one, ast.Name | ast.Attribute))


@pytest.fixture(scope="module", autouse=True)
def _the_trees_go_with_the_last_test() -> Iterator[None]:
    """Millions of small objects, which every collection of garbage would walk, now and later."""
    gc.disable()
    yield
    nodes_of.cache_clear()
    tree_of.cache_clear()
    gc.enable()


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def judge(rule: str, broken: Iterator[str]) -> None:
    """Fail on what breaks *rule* and is not excepted, and on exceptions that nothing needs."""
    found = set(broken)
    excepted = {entry.removeprefix(f"{rule} ") for entry in EXCEPTIONS if entry.startswith(f"{rule} ")}
    assert not found - excepted, f"{rule}: " + "; ".join(sorted(found - excepted))
    assert not excepted - found, f"not needed any more, delete it: {sorted(excepted - found)}"


def own_lines(function: Function) -> int:
    """Lines of code of a function: without its docstring, and without the functions it only holds."""
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        lines -= first.end_lineno - first.lineno + 1
    nested = (one for one in ast.walk(function) if one is not function and isinstance(one, Function))
    return lines - sum(own_lines(one) for one in nested)


def test_no_file_is_longer_than_400_lines() -> None:
    judge(
        "file",
        (
            name_of(path)
            for path in tracked()
            if path.suffix in {".py", ".sql"} and len(path.read_text().splitlines()) > FILE_LINES_MAX
        ),
    )


def test_no_function_is_longer_than_40_lines() -> None:
    judge(
        "function",
        (
            f"{name_of(path)}:{node.name}"
            for path in modules()
            for node in nodes_of(path)
            if isinstance(node, Function)
            # Nested functions only reduce the count, and finding them walks the function again.
            and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
            and own_lines(node) > FUNCTION_LINES_MAX
        ),
    )


def documented_methods(module: ast.Module) -> set[str]:
    """Names of methods that say what they promise; one that overrides such a method promises the same."""
    classes = [node for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    methods = [node for one in classes for node in one.body if isinstance(node, Function)]
    return {node.name for node in methods if ast.get_docstring(node)}


def undocumented(body: list[ast.stmt], prefix: str, inherited: set[str]) -> Iterator[str]:
    overloads = {"overload", "typing.overload"}
    for node in body:
        if not isinstance(node, (ast.ClassDef, *Function.__args__)) or node.name.startswith("_"):
            continue
        if overloads & {ast.unparse(one) for one in node.decorator_list}:
            continue
        if ast.get_docstring(node) is None and not (prefix and node.name in inherited):
            yield f"{prefix}{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node.body, f"{prefix}{node.name}.", inherited)


def test_every_public_name_says_what_it_promises() -> None:
    judge(
        "docstring",
        (
            f"{name_of(path)}:{name}"
            for path in modules("src")
            for name in ([] if ast.get_docstring(tree_of(path)) or not tree_of(path).body else ["module"])
            + list(undocumented(tree_of(path).body, "", documented_methods(tree_of(path))))
        ),
    )


def test_sql_stands_in_sql_files() -> None:
    judge(
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
def test_sql_in_a_string_would_be_noticed(text: str) -> None:
    assert SQL.search(text)


@pytest.mark.parametrize("text", ["Select a theme from the list", "Update the client, set it up again"])
def test_prose_is_not_taken_for_sql(text: str) -> None:
    assert not SQL.search(text)


@pytest.mark.parametrize(("call", "instead"), BANNED_CALLS.items())
def test_banned_calls_are_not_made(call: str, instead: tuple[str, str]) -> None:
    judge(
        call,  # what to write instead stands in BANNED_CALLS
        (name_of(path) for path in modules(instead[1]) if call in calls_in(path)),
    )


#: Python before 3.11.5 loses matches where a group is repeated so (python/cpython#106052): games, in a file.
POSSESSIVE_GROUP = re.compile(r"\)(?:[*+?]|\{[\d,]+\})" + r"\+")


def test_no_pattern_repeats_a_group_possessively() -> None:
    judge(
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


def test_every_package_says_what_its_door_shows() -> None:
    judge(
        "door",
        (
            name_of(path)
            for path in modules("src")
            if path.name == "__init__.py" and len(tree_of(path).body) > 1 and not declares_all(path)
        ),
    )


def declares_all(path: Path) -> bool:
    targets = [node.targets for node in tree_of(path).body if isinstance(node, ast.Assign)]
    return any(isinstance(one, ast.Name) and one.id == "__all__" for target in targets for one in target)


def test_nobody_enters_a_package_but_by_its_door() -> None:
    judge(
        "private",
        (
            f"{name_of(path)}:{node.lineno}"
            for path in modules("src")
            for node in nodes_of(path)
            if isinstance(node, ast.ImportFrom) and enters_by_the_window(path, node.module or "")
        ),
    )


def enters_by_the_window(path: Path, module: str) -> bool:
    package, dot, private = module.partition("._")
    here = ".".join(path.relative_to(ROOT).parts)
    return bool(dot and private) and package.startswith(("relaybox", "backend")) and package not in here


def test_no_text_tells_on_which_machine_it_was_written() -> None:
    judge(
        "machine",
        (
            f"{name_of(path)}:{number}"
            for path in tracked()
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
            if MACHINE.search(line)
        ),
    )
