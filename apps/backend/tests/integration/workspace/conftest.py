"""Tests of the workspace talk to its application."""

from tests.fixtures.studio import studio

__all__ = ("studio",)
