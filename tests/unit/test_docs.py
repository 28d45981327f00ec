"""Links, commands, settings and names in README and docs exist."""

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from backend.cli import app as backend_app
from backend.genesis import _events, session
from backend.workspace.errors import ChessNotInstalled
from relaybox.cli import LazyGroup
from relaybox.cli import app as relaybox_app
from relaybox.cli._errors import ExtraMissing, needs_extra
from relaybox.commands import EventType
from relaybox.consumers import ConsumerCollector
from relaybox.local._errors import INSTALL_LOCAL
from relaybox.relay import BreakerState, RelayCollector
from relaybox.relay._statistics import Counters
from relaybox.tasks import RunnerStatistics, TaskBacklog, TaskCollector
from typer.main import get_command

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        ROOT / name
        for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
    ]
    + list(DOCS.rglob("*.md"))
)
#: Pages whose longer snippets have their own tests.
OTHER_PAGES = [
    ROOT / name / "README.md"
    for name in (
        *("apps/backend", "packages/relaybox", "packages/shared-types", "packages/types"),
        *("benchmarks", "examples/bank", "examples/orders", "examples/outbox_only"),
    )
]
LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)```([a-z]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SOURCES = [
    ROOT / name / "src"
    for name in ("packages/types", "packages/relaybox", "packages/shared-types", "apps/backend")
]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fences(page: Path, *languages: str) -> Iterator[str]:
    for indent, language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        if language in languages:
            yield "\n".join(line.removeprefix(indent) for line in text.splitlines())


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub generates them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES + OTHER_PAGES, ids=name_of)
def test_links_have_targets(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_pages_are_reachable_from_the_index() -> None:
    reached, open_pages = set[Path](), [DOCS / "README.md"]
    while open_pages:
        page = open_pages.pop()
        if page in reached or page.suffix != ".md" or not page.is_file():
            continue
        reached.add(page)
        open_pages += [(page.parent / link.partition("#")[0]).resolve() for link in LINK.findall(prose(page))]
    assert set(DOCS.rglob("*.md")) <= reached


@cache
def commands() -> frozenset[str]:
    """Return every command of both programs, such as ``relaybox topics create``."""
    found = set[str]()

    def walk(name: str, command: object) -> None:
        below = getattr(command, "commands", {})
        for word in below:
            if isinstance(command, LazyGroup):
                command.load(word)
            walk(f"{name} {word}", below[word])
        if not below:
            found.add(name)

    programs: dict[str, typer.Typer] = {"relaybox": relaybox_app, "backend": backend_app}
    for program, app in programs.items():
        walk(program, get_command(app))
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES + OTHER_PAGES, ids=name_of)
def test_commands_in_pages_exist(page: Path) -> None:
    text = "\n".join([*fences(page, "sh", "bash"), *re.findall(r"`([^`\n]+)`", prose(page))])
    for line in re.findall(r"(?<![\w./@\"-])((?:relaybox|backend)(?: +[a-z]+(?:-[a-z]+)*)+)", text):
        words = line.split()
        known = {tuple(command.split()[: len(words)]) for command in commands()} | {
            tuple(command.split()) for command in commands()
        }
        assert any(tuple(words[:length]) in known for length in (3, 2)), line


@pytest.mark.parametrize("page", PAGES + OTHER_PAGES, ids=name_of)
def test_make_targets_in_pages_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join([*fences(page, "sh", "bash"), *re.findall(r"`([^`\n]+)`", prose(page))])
    named = set(re.findall(r"\bmake (?:-s )?([a-z-]+)", text))
    assert named <= targets


def test_page_of_commands_lists_every_command() -> None:
    listed = set(
        re.findall(
            r"^\| `((?:relaybox|backend)[a-z -]+)` \|", (DOCS / "reference/cli.md").read_text(), re.MULTILINE
        )
    )
    assert listed == commands()


@pytest.mark.parametrize("page", PAGES + OTHER_PAGES, ids=name_of)
def test_shell_blocks_have_valid_syntax(page: Path) -> None:
    for text in fences(page, "sh", "bash"):
        checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("page", sorted((ROOT / "examples").glob("*/README.md")), ids=name_of)
def test_logs_of_examples_are_ignored_by_git(page: Path) -> None:
    [log] = {name for text in fences(page, "bash") for name in re.findall(r">> (\w+)", text)}
    checked = subprocess.run(["git", "check-ignore", "--quiet", page.parent / log], cwd=ROOT, check=False)
    assert checked.returncode == 0, f"{page.parent.name}/{log}"


def python_blocks() -> Iterator[object]:
    for page in PAGES:
        for number, text in enumerate(fences(page, "python")):
            yield pytest.param(text, id=f"{name_of(page)}:{number}")


@pytest.mark.parametrize("text", list(python_blocks()))
def test_python_blocks_have_valid_syntax(text: str) -> None:
    compile(text, "block", "exec")


def test_tutorial_command_works_with_its_example(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JWT_SECRET", "a secret of thirty-two bytes, or more")
    example = (ROOT / "examples/orders/app.py").read_text()
    blocks = list(fences(DOCS / "tutorial.md", "python"))
    assert all(block.startswith("# continues examples/orders/app.py") for block in blocks)
    names: dict[str, object] = {"__name__": "tutorial"}
    exec(compile("\n".join([example, *blocks]), "tutorial", "exec", dont_inherit=True), names)
    document: dict[str, Any] = getattr(names["app"], "openapi")()  # noqa: B009 - its type is not known here
    sent = document["paths"]["/orders/{order_id}/commands"]["post"]
    schemas = document["components"]["schemas"]
    assert sent["requestBody"]["content"]["application/json"]["schema"] == {
        "oneOf": [{"$ref": "#/components/schemas/CancelOrderCommand"}],
        "discriminator": {
            "propertyName": "command_type",
            "mapping": {"CancelOrder": "#/components/schemas/CancelOrderCommand"},
        },
    }
    assert schemas["CancelOrderCommand"]["properties"]["payload"] == {
        "$ref": "#/components/schemas/CancelOrder"
    }
    assert list(schemas["CancelOrder"]["properties"]) == ["reason"]
    assert "TOO_LATE" in schemas["CancelOrderCommand"]["description"]
    assert "TOO_LATE" in sent["responses"]["422"]["description"]


def test_snippets_of_the_samples_page_run() -> None:
    for block in fences(DOCS / "reference/samples.md", "python"):
        exec(compile(block, "samples", "exec", dont_inherit=True), {"__name__": "samples"})


def error_codes() -> set[str]:
    """Return every error code in the sources."""
    found = set[str]()
    for source in SOURCES:
        for path in source.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            found |= set(re.findall(r'error_code(?:: [\w\[\]]+)? = "([A-Z_]+)"', text))
            found |= set(re.findall(r'"error_code": "([A-Z_]+)"', text))
            found |= set(re.findall(r'_report_failure\(task, "([A-Z_]+)"', text))
    return found


def _pages_of_http() -> str:
    """Return the common page and the page of the workspace."""
    return "\n".join((DOCS / f"reference/{name}.md").read_text() for name in ("http", "workspace"))


def test_exactly_the_error_codes_are_documented() -> None:
    page = _pages_of_http()
    listed = set[str]()
    for row in re.findall(r"^\|(.*)\|$", page, re.MULTILINE):
        cells = row.split(" | ")
        codes = cells[1] if re.fullmatch(r" \d{3}", cells[0]) else cells[0]
        listed |= {code for code in re.findall(r"`([A-Z_]+)`", codes) if "_" in code}
    assert listed == error_codes()


def test_exactly_the_routes_are_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "a secret of thirty-two bytes, or more")
    monkeypatch.setenv("SERVICE_TYPE", "api-gateway")
    from backend.api import create_api

    paths = create_api().openapi()["paths"]
    served = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    page = _pages_of_http()
    assert set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", page, re.MULTILINE)) == served


def test_exactly_the_http_commands_are_documented() -> None:
    page = (DOCS / "reference/http.md").read_text()
    for_clients = {
        name for name, one in session.genesis.handlers.items() if not (one.internal or one.creates)
    }
    assert set(re.findall(r"^\| `([A-Z]\w+)` \|.* (?:200|202) \|$", page, re.MULTILINE)) == for_clients


def test_exactly_the_events_are_documented() -> None:
    page = (DOCS / "reference/events.md").read_text()
    declared = {one.name for one in vars(_events).values() if isinstance(one, EventType)}
    assert set(re.findall(r"^\| `([A-Z]\w+\.[\w.]+)` \|", page, re.MULTILINE)) == declared


def test_exactly_the_kafka_headers_are_documented() -> None:
    source = (ROOT / "packages/relaybox/src/relaybox/relay/_messages.py").read_text()
    page = (DOCS / "reference/events.md").read_text().partition("## On Kafka")[2]
    pattern = r"\b(ce_[a-z]+|content-type)\b"
    headers = {
        one for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for one in re.findall(pattern, row)
    }
    assert headers == set(re.findall(rf'"{pattern}"', source))


IDLE_RUNNER = RunnerStatistics(
    running=0,
    ended=0,
    lost=0,
    postponed=0,
    released=0,
    backlog=TaskBacklog(),
    attempt_counts=(0,) * 13,
    attempt_sum_s=0.0,
)


@cache
def figures() -> frozenset[str]:
    """Return the names of all metrics, without the suffixes of Prometheus."""
    modules = ("telemetry/_metrics.py", "idempotency/_sweep.py", "flows/_metrics.py", "periodic/_metrics.py")
    source = "".join((ROOT / "packages/relaybox/src/relaybox" / one).read_text() for one in modules)
    statistics = Counters().snapshot(
        lanes=(),
        members=1,
        in_flight=0,
        breaker=BreakerState.CLOSED,
        partitions_unavailable=(),
        lanes_stuck=(),
    )
    of_the_relay = {metric.name for metric in RelayCollector(lambda: statistics).collect()}
    of_a_consumer = {metric.name for metric in ConsumerCollector().collect()}
    of_a_runner = {metric.name for metric in TaskCollector(lambda: IDLE_RUNNER).collect()}
    return frozenset(
        of_the_relay | of_a_consumer | of_a_runner | set(re.findall(r'"(relaybox_[a-z_]+)"', source))
    )


def test_metrics_in_pages_exist() -> None:
    page = (DOCS / "how-to/monitoring.md").read_text()
    named = re.findall(r"`(relaybox_[a-z_]+)`", page)
    assert {name.removesuffix("_total") for name in named} == figures()


def missing_extra() -> str:
    with pytest.raises(ExtraMissing) as caught, needs_extra("http"):
        raise ModuleNotFoundError(name="jwt")
    return str(caught.value)


@pytest.mark.parametrize("message", [missing_extra(), INSTALL_LOCAL, str(ChessNotInstalled())])
def test_install_command_of_an_error_works_in_a_clone(message: str) -> None:
    for requirement in shlex.split(message.partition("pip install ")[2].rstrip(".")):
        directory, _, extra = requirement.partition("[")
        project = tomllib.loads((ROOT / directory / "pyproject.toml").read_text())["project"]
        assert extra.rstrip("]") in {"", *project.get("optional-dependencies", {})}
