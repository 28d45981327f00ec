"""Define the timeout of all waits of the test kit."""

from typing import Final

__all__ = ("WAIT_S",)

#: Timeout in seconds. A wait ends as soon as its condition is met, so only a defect waits this long.
WAIT_S: Final = 120.0
