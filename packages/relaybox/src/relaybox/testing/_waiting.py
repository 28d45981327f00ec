"""Upper bound of all waits of the test kit."""

from typing import Final

__all__ = ("WAIT_S",)

#: Seconds. Each wait ends at its signal, so the bound costs no time; only a defect reaches it.
WAIT_S: Final = 120.0
