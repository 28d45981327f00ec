"""Each guarantee has a test with its marker, and the generated page lists them."""

import re

import pytest

from tests.guarantees import PAGE, marked_tests, page_of, promised_rules
from tests.guarantees._page import MarkedTest


@pytest.fixture(scope="module")
def marked() -> dict[str, list[MarkedTest]]:
    """Parse all tests once: this takes a second."""
    return marked_tests()


def test_page_of_guarantees_is_up_to_date(marked: dict[str, list[MarkedTest]]) -> None:
    assert PAGE.read_text(encoding="utf-8") == page_of(marked), "run: make guarantees"


@pytest.mark.parametrize("rule", promised_rules())
def test_promised_rule_has_a_test(rule: str, marked: dict[str, list[MarkedTest]]) -> None:
    assert marked.get(rule), f'no test is marked with @pytest.mark.guarantee("{rule}")'


def test_rule_is_promised_once() -> None:
    assert len(set(promised_rules())) == len(promised_rules())


def test_each_marker_names_a_rule_of_the_page(marked: dict[str, list[MarkedTest]]) -> None:
    named = set(re.findall(r"\bG\d\d\b", page_of({})))
    ranges = re.findall(r"\bG(\d\d)–G(\d\d)\b", page_of({}))
    named |= {f"G{number:02}" for first, last in ranges for number in range(int(first), int(last) + 1)}
    assert set(marked) <= named
