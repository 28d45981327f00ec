"""What is known of a supervised part, and when it is started again; pure."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Self

__all__ = ("CRASHES_TO_BE_DOWN", "STEADY_S", "PartState", "PartStatus", "restart_pause_s")

#: A part counts as down from this crash in a row.
CRASHES_TO_BE_DOWN: Final = 3
#: The crashes of a part that was ready for this long are forgotten.
STEADY_S: Final = 60.0
_BACKOFF_S: Final = 0.25
_BACKOFF_MAX_S: Final = 30.0


class PartState(StrEnum):
    """What a supervised part is doing.

    STARTING ─ready─► READY ─crash─► STARTING ─third crash in a row─► DOWN ─ready─► READY
    """

    STARTING = "starting"
    READY = "ready"
    #: Crashed at least three times in a row; it is still started again.
    DOWN = "down"


@dataclass(frozen=True, kw_only=True, slots=True)
class PartStatus:
    """The state of one part, and the crashes that led to it."""

    name: str
    state: PartState = PartState.STARTING
    #: In a row: since the part was last ready for a minute.
    crashes: int = 0
    #: How it ended last, such as "ended with exit code 1"; None if it has not crashed.
    ended: str | None = None

    @property
    def keeps_crashing(self) -> bool:
        """Whether it has crashed often enough to be down, also in the moment in which it is ready again."""
        return self.crashes >= CRASHES_TO_BE_DOWN

    def ready(self) -> Self:
        """Return the status once the part can be used."""
        return replace(self, state=PartState.READY)

    def steady(self) -> Self:
        """Return the status once the part has been ready for a minute."""
        return replace(self, crashes=0)

    def crashed(self, how: str) -> Self:
        """Return the status after one more crash."""
        crashes = self.crashes + 1
        state = PartState.DOWN if crashes >= CRASHES_TO_BE_DOWN else PartState.STARTING
        return replace(self, state=state, crashes=crashes, ended=how)

    def __str__(self) -> str:
        """One line: ``concept-agent: down, crashed 4 times in a row, ended with exit code 1``."""
        if not self.crashes:
            return f"{self.name}: {self.state}"
        times = "once" if self.crashes == 1 else f"{self.crashes} times in a row"
        return f"{self.name}: {self.state}, crashed {times}, {self.ended}"


def restart_pause_s(crashes: int) -> float:
    """Return the wait before the next start: 0.25 s after the first crash in a row, doubling to 30 s."""
    return min(_BACKOFF_MAX_S, _BACKOFF_S * 2 ** min(crashes - 1, 10))
