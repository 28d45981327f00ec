"""Fixtures of the tests that send requests to the workspace's application."""

from tests.fixtures.club import club
from tests.fixtures.studies import studies
from tests.fixtures.studio import studio

__all__ = ("club", "studies", "studio")
