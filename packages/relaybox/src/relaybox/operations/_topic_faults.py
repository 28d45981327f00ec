"""Find faults of topics: availability, replication and limits. No I/O."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from relaybox.topics import Brokers, Replication, TopicState, min_isr_for, replicas_for

__all__ = ("Expected", "TopicFault", "TopicUse", "find_faults")

#: Most partitions that the text of a fault lists.
_NAMED_MAX: Final = 10


class TopicUse(StrEnum):
    """Purpose of a topic."""

    EVENTS = "events"
    #: The control topic of the relays. A marker is the id of a lane's last batch; the relay writes it in the
    #: Kafka transaction of that batch.
    MARKERS = "markers"
    #: Kafka's ``__transaction_state``. While this topic is unavailable, exactly-once relays publish nothing.
    TRANSACTIONS = "transactions"
    #: Kafka's ``__consumer_offsets``. If offsets are lost, consumers receive events again and skip known ids.
    OFFSETS = "offsets"


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicFault:
    """One fault of a topic."""

    #: Name of the kind of fault, which does not change between versions: ``TOPIC_OFFLINE``, …
    code: str
    #: Description with the values found.
    what: str
    #: What the operator should do.
    remedy: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """Requirements for the topics of a cluster."""

    #: The brokers of the cluster.
    brokers: Brokers
    #: Replication required by the settings.
    replication: Replication
    #: Size of the largest message that the outbox accepts.
    message_bytes_max: int

    def replication_of(self, use: TopicUse) -> Replication:
        """Return the required replication of a topic for *use*.

        The settings apply to topics that Relaybox creates (EVENTS, MARKERS). For topics that Kafka creates,
        the default for the number of brokers is required.
        """
        return self.replication if use in {TopicUse.EVENTS, TopicUse.MARKERS} else Replication()


def find_faults(name: str, use: TopicUse, state: TopicState | None, expected: Expected) -> list[TopicFault]:
    """Return the faults of a topic, the most severe first.

    Args:
        name: Name of the topic.
        use: Purpose of the topic. A topic for events must exist; Kafka and relays create the others on first
            use.
        state: State of the topic; None if the topic does not exist.
        expected: Requirements from the settings and the number of brokers.
    """
    if state is None:
        return [_MISSING] if use is TopicUse.EVENTS else []
    return [
        *_availability(state, expected.brokers),
        *_replication(name, use, state, expected),
        *(_limit(name, state, expected.message_bytes_max) if use is TopicUse.EVENTS else ()),
    ]


_MISSING: Final = TopicFault(
    code="TOPIC_MISSING",
    what="the topic does not exist, so no relay publishes its events",
    remedy="run `relaybox topics create`",
)


def _availability(state: TopicState, brokers: Brokers) -> Iterator[TopicFault]:
    slow = "look for the cause in the logs of the brokers"
    start = f"start {brokers.absent_named}" if brokers.absent else slow
    if state.offline:
        yield TopicFault(
            code="TOPIC_OFFLINE",
            what=f"{_partitions(state.offline)} without a leader: no writes and no reads",
            remedy=start,
        )
    if state.below_min_isr:
        yield TopicFault(
            code="TOPIC_BELOW_MIN_ISR",
            what=f"{_partitions(state.below_min_isr)} with fewer replicas in sync than "
            f"min.insync.replicas={state.min_isr}: no writes",
            remedy=start,
        )
    if state.under_replicated:
        yield TopicFault(
            code="TOPIC_UNDER_REPLICATED",
            what=f"{_partitions(state.under_replicated)} with a replica that is not in sync",
            remedy=f"{start}; replicas then catch up automatically",
        )


def _replication(name: str, use: TopicUse, state: TopicState, expected: Expected) -> Iterator[TopicFault]:
    demanded, known = expected.replication_of(use), len(expected.brokers.known)
    replicas = demanded.replicas or replicas_for(known)
    if state.replicas < replicas:
        lost = "a partition accepts no writes while its broker is down, and is lost with the broker's disk"
        yield TopicFault(
            code="TOPIC_FEW_REPLICAS",
            what=f"replication {state.replicas} on {known} broker{'s' if known > 1 else ''}: "
            + (lost if state.replicas == 1 else f"{replicas} are expected"),
            remedy=f"assign {replicas} replicas to each partition with kafka-reassign-partitions.sh",
        )
    if state.min_isr is not None:
        yield from _min_isr(name, use, state.min_isr, state.replicas, demanded)


def _min_isr(
    name: str, use: TopicUse, min_isr: int, replicas: int, demanded: Replication
) -> Iterator[TopicFault]:
    safe = min_isr_for(replicas)
    wanted = min(demanded.min_isr or safe, replicas)
    if min_isr > max(wanted, safe):
        yield TopicFault(
            code="TOPIC_HIGH_MIN_ISR",
            what=f"min.insync.replicas={min_isr} of {_replicas(replicas)}: "
            + ("no writes" if min_isr > replicas else "no writes while one broker is down"),
            remedy=_set_min_isr(name, safe),
        )
    elif min_isr < wanted and use is not TopicUse.OFFSETS:
        yield TopicFault(
            code="TOPIC_LOW_MIN_ISR",
            what=f"min.insync.replicas={min_isr} of {_replicas(replicas)}: "
            "an acknowledged record is lost if one broker is lost",
            remedy=_set_min_isr(name, wanted),
        )


def _replicas(count: int) -> str:
    return f"{count} replica{'s' if count > 1 else ''}"


def _limit(name: str, state: TopicState, message_bytes_max: int) -> Iterator[TopicFault]:
    if state.bytes_max is not None and state.bytes_max < message_bytes_max:
        yield TopicFault(
            code="TOPIC_LOW_LIMIT",
            what=f"max.message.bytes={state.bytes_max}, but OUTBOX_MESSAGE_BYTES_MAX={message_bytes_max}: "
            "the broker rejects larger events",
            remedy=f"run `relaybox topics raise-limit {name} {message_bytes_max}`",
        )


def _set_min_isr(name: str, value: int) -> str:
    return (
        f"run kafka-configs.sh --alter --entity-type topics --entity-name {name} "
        f"--add-config min.insync.replicas={value}"
    )


def _partitions(numbers: Iterable[int]) -> str:
    listed = list(numbers)
    shown = ", ".join(map(str, listed[:_NAMED_MAX])) + (", …" if len(listed) > _NAMED_MAX else "")
    return f"{len(listed)} partition{'s' if len(listed) > 1 else ''} ({shown})"
