"""Generate ``docs/reference/python.md``, and a page for each public module, from the docstrings."""

from tests.reference._names import PublicModule, public_modules
from tests.reference._pages import DIRECTORY, INDEX, pages_by_path, write_pages

__all__ = ("DIRECTORY", "INDEX", "PublicModule", "pages_by_path", "public_modules", "write_pages")
