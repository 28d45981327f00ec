"""Lanes that failed: when each is tried again, and when it counts as stuck. Pure: no clock of its own."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from relaybox.relay._backoff import link_pause_s

__all__ = ("LaneFailures",)

#: A lane counts as stuck when it has been in trouble for so long; a takeover after a kill takes up to 10 s.
_STUCK_S: Final = 10.0
#: A lane that is open and has not failed for so long is no longer in trouble, even if nothing was published.
_QUIET_S: Final = 15.0


@dataclass(kw_only=True, slots=True)
class _LaneFailure:
    since_s: float
    last_s: float
    reason: str
    failures: int = 0
    pause_until_s: float = 0.0

    def failed_again_lately(self, now_s: float) -> bool:
        return self.last_s - self.since_s >= _STUCK_S and now_s - self.last_s < _QUIET_S


class LaneFailures:
    """What keeps each lane of a relay from publishing; a lane is tried again after pauses that grow."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """*clock* returns seconds."""
        self._clock = clock
        self._lanes: dict[int, _LaneFailure] = {}

    def record(self, lane: int, reason: str, *, at_least_s: float = 0.0) -> float:
        """Note that *lane* failed because of *reason*; return the seconds until it is tried again."""
        now_s = self._clock()
        trouble = self._lanes.setdefault(lane, _LaneFailure(since_s=now_s, last_s=now_s, reason=reason))
        trouble.failures += 1
        trouble.last_s, trouble.reason = now_s, reason
        pause_s = max(link_pause_s(trouble.failures), at_least_s)
        trouble.pause_until_s = now_s + pause_s
        return pause_s

    def clear(self, lane: int) -> None:
        """Note that *lane* has published a batch."""
        self._lanes.pop(lane, None)

    def forget_others(self, lanes: Collection[int]) -> None:
        """Forget the lanes that are none of *lanes*: other relays have them."""
        for lane in self._lanes.keys() - set(lanes):
            del self._lanes[lane]

    def may_retry(self, lane: int) -> bool:
        """Return whether the pause of *lane* is over."""
        trouble = self._lanes.get(lane)
        return trouble is None or self._clock() >= trouble.pause_until_s

    def stuck(self, open_lanes: Collection[int]) -> dict[int, str]:
        """Return the last failure of each lane that has failed for 10 s."""
        now_s = self._clock()
        return {
            lane: trouble.reason
            for lane, trouble in sorted(self._lanes.items())
            if now_s - trouble.since_s >= _STUCK_S
            and (lane not in open_lanes or trouble.failed_again_lately(now_s))
        }
