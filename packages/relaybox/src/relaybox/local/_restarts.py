"""Compute the status of a supervised part, and the pause before its restart, by pure functions.

A part is a program or a local server that the supervisor runs.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Self

__all__ = ("CRASHES_TO_BE_DOWN", "STEADY_S", "PartState", "PartStatus", "restart_pause_s")

#: Number of consecutive crashes after which a part is DOWN.
CRASHES_TO_BE_DOWN: Final = 3
#: Seconds for which a part must be READY until its number of crashes is set to 0.
STEADY_S: Final = 60.0
_BACKOFF_S: Final = 0.25
_BACKOFF_MAX_S: Final = 30.0


class PartState(StrEnum):
    """State of a supervised part.

    ::

        STARTING ─ready─► READY ─crash─► STARTING
        STARTING or READY ─third consecutive crash─► DOWN ─ready─► READY ─next crash─► DOWN

    After 60 s in READY the crashes are counted from 0 again.
    """

    STARTING = "starting"
    READY = "ready"
    #: The part crashed at least three times in a row; the supervisor continues to restart it.
    DOWN = "down"


@dataclass(frozen=True, kw_only=True, slots=True)
class PartStatus:
    """State and crashes of one part."""

    name: str
    state: PartState = PartState.STARTING
    #: Crashes since the part was last READY for a minute.
    crashes: int = 0
    #: Description of the last exit, such as "ended with exit code 1"; None if the part never crashed.
    ended: str | None = None

    @property
    def keeps_crashing(self) -> bool:
        """Whether the part has crashed three or more times in a row, even if it is READY again."""
        return self.crashes >= CRASHES_TO_BE_DOWN

    def ready(self) -> Self:
        """Return the status after the part has become ready."""
        return replace(self, state=PartState.READY)

    def steady(self) -> Self:
        """Return the status after the part was READY for a minute: its number of crashes is 0 again."""
        return replace(self, crashes=0)

    def crashed(self, how: str) -> Self:
        """Return the status after one more crash; *how* describes the exit."""
        crashes = self.crashes + 1
        state = PartState.DOWN if crashes >= CRASHES_TO_BE_DOWN else PartState.STARTING
        return replace(self, state=state, crashes=crashes, ended=how)

    def __str__(self) -> str:
        """Return one line: ``concept-agent: down, crashed 4 times in a row, ended with exit code 1``."""
        if not self.crashes:
            return f"{self.name}: {self.state}"
        times = "once" if self.crashes == 1 else f"{self.crashes} times in a row"
        return f"{self.name}: {self.state}, crashed {times}, {self.ended}"


def restart_pause_s(crashes: int) -> float:
    """Return the pause before a restart: 0.25 s after the first consecutive crash, doubling up to 30 s."""
    return min(_BACKOFF_MAX_S, _BACKOFF_S * 2 ** min(crashes - 1, 10))
