"""What a relay tells operators, metrics and tests about itself."""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

from relaybox.relay._breaker import BreakerState

__all__ = ("BATCH_ROWS_BOUNDS", "DELAY_BOUNDS_S", "Backlog", "Counters", "Statistics")

#: Upper bounds of the histogram of seconds from insert to acknowledgement; the last bucket has none.
DELAY_BOUNDS_S: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

#: More troubles than these are not listed.
TROUBLES_MAX: Final = 20

#: Upper bounds of the histogram of rows per published batch; the last bucket has none.
BATCH_ROWS_BOUNDS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Backlog:
    """What waits in the outbox, measured every ``RELAY_POLL_INTERVAL``; rows are counted up to 100,000."""

    #: PENDING rows.
    pending: int = 0
    #: Those of them that wait for their next attempt, after a fault of their own or of the link.
    retrying_row: int = 0
    retrying_link: int = 0
    #: FAILED rows: through their own fault, which wait for an operator, and through the link's, which are
    #: taken up again when Kafka is back.
    failed_row: int = 0
    failed_link: int = 0
    #: Rows that an operator decided not to publish, until they are purged.
    skipped: int = 0
    #: Keys with a FAILED row; nothing behind it is published.
    keys_blocked: int = 0
    #: Age of the first PENDING row in seconds; 0 without one.
    oldest_pending_s: float = 0.0
    #: Age of the first PENDING row that no FAILED one holds back; 0 without one.
    oldest_due_s: float = 0.0
    #: Lanes there are, whoever owns them, and those that wait for an operator.
    lanes: int = 0
    lanes_faulty: int = 0
    #: When PostgreSQL was last found in another history, in seconds since 1970; 0: never (G35).
    history_changed_at_s: float = 0.0


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
    #: Rows that nobody told of: the poll found them (G28).
    polled_total: int
    #: Rows published after a later one of their key that was not known before it: late commits (G22).
    late_total: int
    #: Rows published after a later one of their key although they were known before it. Must stay 0 (G21).
    order_violations_total: int
    #: How often removing old rows or measuring the backlog failed; both are tried again.
    maintenance_failures_total: int
    #: Published rows by seconds from insert to acknowledgement: one count per bound of ``DELAY_BOUNDS_S``,
    #: and one for all above; not cumulative.
    delay_counts: tuple[int, ...]
    delay_sum_s: float
    #: Published batches by rows: one count per bound of ``BATCH_ROWS_BOUNDS``, and one for all above.
    batch_counts: tuple[int, ...]
    batch_rows_sum: int
    lanes: tuple[int, ...]
    #: Living relays, this one included.
    members: int
    in_flight: int
    backlog: Backlog
    breaker: BreakerState
    #: A sentence for each partition that takes no writes; its keys wait (G36).
    partitions_unavailable: tuple[str, ...]
    #: A sentence for each owned lane that has tried to publish for 10 s and could not.
    lanes_stuck: tuple[str, ...]

    @property
    def troubles(self) -> tuple[str, ...]:
        """Why some of the rows are not published, 20 sentences at the most."""
        return (*self.partitions_unavailable, *self.lanes_stuck)[:TROUBLES_MAX]

    @property
    def link_up(self) -> bool:
        """Whether Kafka answers, as far as was tried."""
        return self.breaker is not BreakerState.OPEN


@dataclass(kw_only=True, slots=True)
class Counters:
    """The part of :class:`Statistics` that is counted; changed by the event loop only."""

    published_total: int = 0
    retried_total: int = 0
    failed_total: int = 0
    fenced_total: int = 0
    link_outages_total: int = 0
    polled_total: int = 0
    late_total: int = 0
    order_violations_total: int = 0
    maintenance_failures_total: int = 0
    delay_counts: list[int] = field(default_factory=lambda: [0] * (len(DELAY_BOUNDS_S) + 1))
    delay_sum_s: float = 0.0
    batch_counts: list[int] = field(default_factory=lambda: [0] * (len(BATCH_ROWS_BOUNDS) + 1))
    batch_rows_sum: int = 0
    backlog: Backlog = Backlog()

    def count_published(self, *, bucket: int, rows: int, delay_s: float) -> None:
        """Count *rows* that were marked SENT, *delay_s* the sum of their delays."""
        self.published_total += rows
        self.delay_counts[bucket] += rows
        self.delay_sum_s += delay_s

    def count_batch(self, *, rows: int) -> None:
        """Count a batch of which Kafka has *rows*."""
        self.batch_counts[bisect_left(BATCH_ROWS_BOUNDS, rows)] += 1
        self.batch_rows_sum += rows

    def snapshot(
        self,
        *,
        lanes: tuple[int, ...],
        members: int,
        in_flight: int,
        breaker: BreakerState,
        partitions_unavailable: tuple[str, ...],
        lanes_stuck: tuple[str, ...],
    ) -> Statistics:
        """These counts, and what the caller holds, as of now."""
        return Statistics(
            published_total=self.published_total,
            retried_total=self.retried_total,
            failed_total=self.failed_total,
            fenced_total=self.fenced_total,
            link_outages_total=self.link_outages_total,
            polled_total=self.polled_total,
            late_total=self.late_total,
            order_violations_total=self.order_violations_total,
            maintenance_failures_total=self.maintenance_failures_total,
            delay_counts=tuple(self.delay_counts),
            delay_sum_s=self.delay_sum_s,
            batch_counts=tuple(self.batch_counts),
            batch_rows_sum=self.batch_rows_sum,
            lanes=lanes,
            members=members,
            in_flight=in_flight,
            backlog=self.backlog,
            breaker=breaker,
            partitions_unavailable=partitions_unavailable,
            lanes_stuck=lanes_stuck,
        )
