"""`make bench` and `make bench-compare` on a small repository whose benchmarks print fixed figures."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
#: A short form of `make setup` in a work tree.
MAKEFILE = "setup:\n\tmkdir -p .venv/bin\n\tln -s {python} .venv/bin/python\n"


def prints(**figures: object) -> str:
    """Return the code of a benchmark that prints *figures*."""
    return f"print('a table')\nprint({json.dumps(figures)!r})\n"


class Repository:
    """A git repository with benchmarks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "--quiet")

    def git(self, *arguments: str) -> None:
        names = {
            f"GIT_{role}_{what}": "test@example.org"
            for role in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        subprocess.run(["git", *arguments], cwd=self.root, env={**os.environ, **names}, check=True)

    def write(self, **scripts: str) -> None:
        (self.root / "benchmarks").mkdir(exist_ok=True)
        for name, text in scripts.items():
            (self.root / "benchmarks" / f"{name}.py").write_text(text)
        (self.root / "Makefile").write_text(MAKEFILE.format(python=sys.executable))

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "benchmarks")

    def tool(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(BENCHMARKS), *arguments]
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def line_of(output: str, figure: str) -> str:
    [line] = [line for line in output.splitlines() if line.strip().startswith(f"{figure} ")]
    return line


def test_compare_reports_a_ratio_that_fell(repository: Repository) -> None:
    repository.write(commands=prints(ratio_naive=5.8, wal_bytes_per_event=250, relaybox_per_s=2000))
    repository.commit()
    repository.write(commands=prints(ratio_naive=4.4, wal_bytes_per_event=246, relaybox_per_s=1500))
    done = repository.tool("compare", "HEAD")
    assert done.returncode == 1, done.stderr
    assert line_of(done.stdout, "ratio_naive").endswith("0.76 x  fell by more than 5 %")
    assert line_of(done.stdout, "wal_bytes_per_event").endswith("1.02 x  held")
    assert line_of(done.stdout, "relaybox_per_s").endswith("0.75 x")
    assert "1 figures fell by more than 5 %; 0 benchmarks were not compared" in done.stdout


def test_compare_continues_after_a_broken_benchmark(repository: Repository) -> None:
    broken = "raise SystemExit('CommandResult got a field')\n"
    repository.write(commands=broken, relay=prints(ratio_loop=0.8), verify="print('9 us')\n")
    repository.commit()
    repository.write(
        commands=prints(ratio_naive=5.8),
        growth=prints(ratio=1),
        relay=prints(ratio_loop=0.81),
        verify=prints(ratio=1),
    )
    done = repository.tool("compare", "HEAD")
    assert done.returncode == 2, done.stderr
    assert re.search(
        r"^commands: not compared: \w+: exit code 1: CommandResult got a field$", done.stdout, re.M
    )
    assert re.search(r"^growth: not compared: \w+ has no benchmark of this name$", done.stdout, re.M)
    assert re.search(r"^verify: not compared: \w+: the last line is no JSON object", done.stdout, re.M)
    assert line_of(done.stdout, "ratio_loop").endswith("held")


def test_messages_on_standard_error_do_not_hide_the_figures(repository: Repository) -> None:
    late = "import sys\nsys.stdout.flush()\nprint('a task was destroyed', file=sys.stderr)\n"
    repository.write(commands=prints(ratio_naive=5.8) + late)
    repository.commit()
    done = repository.tool("run", "--short")
    assert done.returncode == 0, done.stdout
    assert "a task was destroyed" in done.stdout
    assert "commands: passed" in done.stdout


def test_compare_removes_its_work_tree(repository: Repository) -> None:
    repository.write(commands=prints(ratio_naive=5.8), relay=prints(ratio_loop=0.8))
    repository.commit()
    done = repository.tool("compare", "HEAD", "relay", "--turns", "1")
    assert done.returncode == 0, done.stderr
    assert "ratio_naive" not in done.stdout
    assert not list((repository.root / ".git" / "worktrees").glob("*"))


def test_compare_runs_both_revisions_in_turns(repository: Repository, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "with open({log!r}, 'a') as log:\n    log.write({label!r})\n" + prints(ratio=1).replace(
        "{", "{{"
    ).replace("}", "}}")
    repository.write(relay=script.format(log=str(log), label="b"))
    repository.commit()
    repository.write(relay=script.format(log=str(log), label="n"))
    assert repository.tool("compare", "HEAD").returncode == 0
    assert log.read_text() == "bnnb"


def test_compare_starts_no_run_after_the_time_limit(repository: Repository) -> None:
    repository.write(relay=prints(ratio_loop=0.8))
    repository.commit()
    done = repository.tool("compare", "HEAD", "--limit-min", "0")
    assert done.returncode == 2
    assert "relay: not compared: the time limit was reached" in done.stdout


def test_compare_stops_a_benchmark_that_hangs(repository: Repository) -> None:
    repository.write(relay="import signal\nsignal.pause()\n")
    repository.commit()
    done = repository.tool("compare", "HEAD", "--limit-min", "0.02")
    assert done.returncode == 2
    stopped = r"^relay: not compared: \w+: stopped because it was still running after 1 s$"
    assert re.search(stopped, done.stdout, re.MULTILINE)


def test_compare_names_an_unusable_revision(
    repository: Repository, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(temporary))
    repository.write(relay=prints(ratio_loop=0.8))
    repository.commit()
    done = repository.tool("compare", "no-such-revision")
    assert done.returncode == 3
    assert "no-such-revision" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(temporary.iterdir())


def test_run_continues_after_a_failure_and_names_it(repository: Repository) -> None:
    repository.write(commands="raise SystemExit(1)\n", relay=prints(ratio_loop=0.8))
    repository.commit()
    done = repository.tool("run", "--short")
    assert done.returncode == 1
    assert "relay: passed" in done.stdout
    assert done.stdout.rstrip().endswith("failed: commands")
    assert not (repository.root / "benchmarks" / "results").exists()


def test_full_run_writes_machine_independent_figures_first(repository: Repository) -> None:
    repository.write(relay=prints(relaybox_per_s=50_000, ratio_loop=0.8, wal_bytes_per_event=246))
    repository.commit()
    done = repository.tool("run", "relay")
    assert done.returncode == 0, done.stderr
    [path] = (repository.root / "benchmarks" / "results").iterdir()
    document = json.loads(path.read_text())
    assert path.name == "relay.json"
    assert list(document) == ["benchmark", "revision", "cores", "machine_independent", "machine_dependent"]
    assert document["machine_independent"] == {"ratio_loop": 0.8, "wal_bytes_per_event": 246}
    assert document["machine_dependent"] == {"relaybox_per_s": 50_000}


def test_run_refuses_an_unknown_benchmark(repository: Repository) -> None:
    repository.write(relay=prints(ratio_loop=0.8))
    repository.commit()
    done = repository.tool("run", "relays")
    assert done.returncode != 0
    assert "no such benchmark: relays; there are relay" in done.stderr


@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_benchmark_has_a_short_form_and_a_line_in_the_readme(script: Path) -> None:
    assert '"--short"' in script.read_text()
    assert f"`{script.name}`" in (BENCHMARKS / "README.md").read_text()
