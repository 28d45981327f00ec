"""``python -m tests.guarantees``: write ``docs/reference/guarantees.md``."""

from tests.guarantees import PAGE, marked_tests, page_of

PAGE.write_text(page_of(marked_tests()), encoding="utf-8")
