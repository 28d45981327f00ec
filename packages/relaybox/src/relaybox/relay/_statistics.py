"""What a relay tells operators, metrics and tests about itself."""

from dataclasses import dataclass, field
from typing import Final

__all__ = ("DELAY_BOUNDS_S", "Counters", "Statistics")

#: Upper bounds of the histogram of seconds from insert to acknowledgement; the last bucket has none.
DELAY_BOUNDS_S: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """One look at a relay. Totals rise since its start; the rest is as of now."""

    #: Rows acknowledged by Kafka and marked SENT.
    published_total: int
    #: Row faults that will be tried again.
    retried_total: int
    #: Rows given up: FAILED, their keys wait for an operator.
    failed_total: int
    #: Acknowledged rows that this relay could not mark, because their lane had gone to another one.
    fenced_total: int
    #: How often Kafka was lost.
    link_outages_total: int
    #: Published rows by seconds from insert to acknowledgement: one count per bound of ``DELAY_BOUNDS_S``,
    #: and one for all above; not cumulative.
    delay_counts: tuple[int, ...]
    delay_sum_s: float
    lanes: tuple[int, ...]
    #: Living relays, this one included.
    members: int
    in_flight: int
    #: PENDING rows of all lanes, counted up to 100,000 every ``RELAY_POLL_INTERVAL``; so are the next three.
    pending: int
    #: PENDING rows that failed and wait for their next attempt.
    retrying: int
    #: Rows that wait for an operator.
    failed: int
    #: Age of the first PENDING row in seconds; 0 without one.
    oldest_pending_s: float
    #: Whether Kafka answers, as far as was tried.
    link_up: bool


@dataclass(kw_only=True, slots=True)
class Counters:
    """The part of :class:`Statistics` that is counted; changed by the event loop only."""

    published_total: int = 0
    retried_total: int = 0
    failed_total: int = 0
    fenced_total: int = 0
    link_outages_total: int = 0
    delay_counts: list[int] = field(default_factory=lambda: [0] * (len(DELAY_BOUNDS_S) + 1))
    delay_sum_s: float = 0.0
    pending: int = 0
    retrying: int = 0
    failed: int = 0
    oldest_pending_s: float = 0.0

    def count_published(self, *, bucket: int, rows: int, delay_s: float) -> None:
        """Count *rows* that were marked SENT, *delay_s* the sum of their delays."""
        self.published_total += rows
        self.delay_counts[bucket] += rows
        self.delay_sum_s += delay_s

    def look(self, *, lanes: tuple[int, ...], members: int, in_flight: int, link_up: bool) -> Statistics:
        """These counts, and what the caller holds, as of now."""
        return Statistics(
            published_total=self.published_total,
            retried_total=self.retried_total,
            failed_total=self.failed_total,
            fenced_total=self.fenced_total,
            link_outages_total=self.link_outages_total,
            delay_counts=tuple(self.delay_counts),
            delay_sum_s=self.delay_sum_s,
            lanes=lanes,
            members=members,
            in_flight=in_flight,
            pending=self.pending,
            retrying=self.retrying,
            failed=self.failed,
            oldest_pending_s=self.oldest_pending_s,
            link_up=link_up,
        )
