"""Check the topics that Relaybox uses (G37)."""

from dataclasses import dataclass
from typing import Final

from relaybox.db import Executor, load_queries
from relaybox.operations._topic_faults import Expected, TopicFault, TopicUse, find_faults
from relaybox.outbox import OutboxSettings
from relaybox.relay import markers_topic
from relaybox.settings import KafkaSettings, RelaySettings
from relaybox.topics import Replication, TopicState, cluster_state

__all__ = ("CheckedTopic", "TopicsCheck", "check_topics")

#: Number of PENDING and of FAILED rows whose topics are checked.
_ROWS_MAX: Final = 10_000
_TRANSACTIONS: Final = "__transaction_state"
_OFFSETS: Final = "__consumer_offsets"
_SQL: Final = load_queries(__package__ or "relaybox.operations", "topics.sql")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedTopic:
    """One topic and its faults."""

    name: str
    use: TopicUse
    #: None if the topic does not exist.
    state: TopicState | None
    faults: tuple[TopicFault, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicsCheck:
    """Result of a check of all topics that Relaybox uses."""

    #: Ids of the brokers that are up.
    brokers: tuple[int, ...]
    #: Ids of brokers that are down and have a replica of some topic of the cluster.
    brokers_absent: tuple[int, ...]
    topics: tuple[CheckedTopic, ...]

    @property
    def ok(self) -> bool:
        """Whether no topic has a fault."""
        return not any(topic.faults for topic in self.topics)


async def check_topics(
    db: Executor, kafka: KafkaSettings, relay: RelaySettings, outbox: OutboxSettings
) -> TopicsCheck:
    """Check the availability, the replication and the limits of each topic that Relaybox uses.

    Relaybox uses the topics of ``OUTBOX_TOPICS``, the topics of PENDING and FAILED rows (of the first 10,000
    each), the control topic of the relays, and Kafka's own topics for transactions and offsets.

    Raises:
        BrokerAway: No broker is reachable.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    [row] = await db.fetch(_SQL["topics_in_use"], _ROWS_MAX)
    uses = dict.fromkeys(sorted(outbox.declared() | set(row["topics"] or ())), TopicUse.EVENTS)
    if row["origin"] is not None:
        uses[markers_topic(row["origin"])] = TopicUse.MARKERS
    uses |= {_TRANSACTIONS: TopicUse.TRANSACTIONS, _OFFSETS: TopicUse.OFFSETS}
    cluster = await cluster_state(kafka, uses)
    expected = Expected(
        brokers=cluster.brokers,
        replication=Replication.of(relay),
        message_bytes_max=outbox.message_bytes_max,
    )
    return TopicsCheck(
        brokers=tuple(sorted(cluster.brokers.live)),
        brokers_absent=tuple(sorted(cluster.brokers.absent)),
        topics=tuple(_checked(name, use, cluster.topics.get(name), expected) for name, use in uses.items()),
    )


def _checked(name: str, use: TopicUse, state: TopicState | None, expected: Expected) -> CheckedTopic:
    return CheckedTopic(
        name=name, use=use, state=state, faults=tuple(find_faults(name, use, state, expected))
    )
