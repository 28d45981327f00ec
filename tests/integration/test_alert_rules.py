"""promtool checks the configuration and runs the tests of the alert rules."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.fixtures.promtool import PromtoolNotAvailable, find_promtool
from tests.unit.test_alerts import MONITORING, RULES


@pytest.fixture(scope="session")
def checker() -> Path:
    try:
        return find_promtool()
    except PromtoolNotAvailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Return a copy of the directory with the rules."""
    return Path(shutil.copytree(MONITORING, tmp_path / "monitoring"))


def checked(checker: Path, place: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([checker, *args], cwd=place, capture_output=True, text=True, check=False)


def test_prometheus_accepts_configuration_and_rules(checker: Path, rules: Path) -> None:
    for what, file in (("config", "prometheus.yml"), ("rules", "alerts.yml")):
        done = checked(checker, rules, "check", what, file)
        assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_as_their_tests_say(checker: Path, rules: Path) -> None:
    done = checked(checker, rules, "test", "rules", "alerts.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("expr", ["vector(0) > 1", "vector(1)"], ids=["never fires", "always fires"])
@pytest.mark.parametrize("name", RULES)
def test_broken_alert_fails_its_test(checker: Path, rules: Path, name: str, expr: str) -> None:
    text = yaml.safe_load((rules / "alerts.yml").read_text())
    [rule] = [rule for group in text["groups"] for rule in group["rules"] if rule["alert"] == name]
    rule["expr"] = expr
    (rules / "alerts.yml").write_text(yaml.safe_dump(text))
    done = checked(checker, rules, "test", "rules", "alerts.test.yml")
    assert done.returncode != 0
    assert name in done.stdout + done.stderr
