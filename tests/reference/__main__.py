"""``python -m tests.reference``: write ``docs/reference/python.md`` and ``docs/reference/python/``."""

from tests.reference import write_pages

write_pages()
