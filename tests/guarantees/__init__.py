"""Generate ``docs/reference/guarantees.md`` from the rules and from the tests' markers."""

from tests.guarantees._page import PAGE, marked_tests, page_of, promised_rules

__all__ = ("PAGE", "marked_tests", "page_of", "promised_rules")
