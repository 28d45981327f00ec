"""Alert rules use existing metrics and link to their section of the page; each has tests for promtool."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.test_docs import anchors, figures

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "infrastructure/monitoring"
PAGE = ROOT / "docs/how-to/monitoring.md"
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
TESTS: list[dict[str, Any]] = [
    case
    for test in yaml.safe_load((MONITORING / "alerts.test.yml").read_text())["tests"]
    for case in test["alert_rule_test"]
]
#: Suffixes that Prometheus adds to the name of a metric.
_SUFFIX = re.compile(r"_(total|bucket|sum|count)$")


@pytest.mark.parametrize("name", RULES)
def test_metrics_of_alerts_exist(name: str) -> None:
    named = re.findall(r"relaybox_[a-z_]+", RULES[name]["expr"])
    assert {_SUFFIX.sub("", one) for one in named} <= figures()


@pytest.mark.parametrize("name", RULES)
def test_alerts_have_summary_severity_and_runbook(name: str) -> None:
    rule = RULES[name]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert ROOT / path == PAGE
    assert anchor == name.lower()
    assert anchor in anchors(PAGE)


def test_page_describes_exactly_the_alerts() -> None:
    described = re.findall(r"^### (Relaybox\w+)\n\n(\w+)", PAGE.read_text(), re.MULTILINE)
    assert dict(described) == {name: rule["labels"]["severity"].capitalize() for name, rule in RULES.items()}


def test_each_alert_has_tests_that_fire_and_do_not() -> None:
    proven = {(case["alertname"], bool(case["exp_alerts"])) for case in TESTS}
    assert proven == {(name, fires) for name in RULES for fires in (True, False)}
