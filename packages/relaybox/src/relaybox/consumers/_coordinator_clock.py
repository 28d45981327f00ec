"""Recognise a Kafka client that does not find the coordinator of its consumer group any more; pure."""

from collections.abc import Mapping
from typing import Any, Final

__all__ = ("COORDINATOR_LOST_S", "CoordinatorClock", "is_coordinated")

#: A client without a coordinator for this time, while brokers respond, is replaced by a new one.
COORDINATOR_LOST_S: Final = 60.0
#: At most this time is counted between two observations: a process that was suspended for longer has not lost
#: its coordinator.
_STEP_S_MAX: Final = 1.0
_GROUP_UP: Final = "up"
_BROKER_UP: Final = "UP"


def is_coordinated(statistics: Mapping[str, Any]) -> bool:
    """Return whether a Kafka client has a coordinator, or cannot have one because no broker responds.

    Args:
        statistics: Statistics of librdkafka (``STATISTICS.md`` of its repository).
    """
    brokers = statistics.get("brokers", {}).values()
    if not any(broker.get("state") == _BROKER_UP for broker in brokers):
        return True
    return statistics.get("cgrp", {}).get("state") == _GROUP_UP


class CoordinatorClock:
    """Measure for how long a Kafka client has found no coordinator of its group although brokers respond.

    librdkafka can lose its coordinator for ever, for example by a deadlock of its main thread, which then
    sends no statistics either. Only a new client finds the coordinator again.
    """

    def __init__(self, now_s: float) -> None:
        self._seen_s = now_s
        self._replace_at_s = COORDINATOR_LOST_S
        #: Seconds without a coordinator. A value up to about 5 only means that librdkafka, which sends
        #: statistics every 5 s, has not sent new ones yet.
        self.lost_s = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the client has to be replaced."""
        return self.lost_s >= self._replace_at_s

    def observe(self, now_s: float, *, coordinated: bool) -> None:
        """Add the time since the last observation, at most 1 s, to ``lost_s``; set it to 0 if *coordinated*.

        Args:
            now_s: The time of a monotonic clock.
            coordinated: Whether statistics arrived since the last observation and :func:`is_coordinated`
                returned True for them.
        """
        self.lost_s += min(now_s - self._seen_s, _STEP_S_MAX)
        self._seen_s = now_s
        if coordinated:
            self.lost_s, self._replace_at_s = 0.0, COORDINATOR_LOST_S

    def replaced(self) -> None:
        """Give a new client 60 s to find the coordinator; ``lost_s`` grows until the client finds it."""
        self._replace_at_s = self.lost_s + COORDINATOR_LOST_S
