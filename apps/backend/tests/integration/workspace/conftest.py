"""Tests of the workspace talk to its application."""

from tests.fixtures.studies import library
from tests.fixtures.studio import studio

__all__ = ("library", "studio")
