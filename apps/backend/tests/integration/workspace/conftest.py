"""Tests of the workspace talk to its application."""

from tests.fixtures.club import club
from tests.fixtures.studies import studies
from tests.fixtures.studio import studio

__all__ = ("club", "studies", "studio")
