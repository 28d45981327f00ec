"""Find out what prevents a consumer group from processing its messages. No I/O."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ("LAG_S", "ConsumerFault", "GroupState", "PartitionPosition", "find_consumer_faults")

#: A lag is a fault if the oldest unfinished message is older than this, as for the alert RelayboxConsumerLag.
LAG_S: Final = 60.0
#: Most topics, or partitions, that the text of a fault lists.
_NAMED_MAX: Final = 10


class GroupState(StrEnum):
    """State of a consumer group in Kafka."""

    #: Each member has its partitions. Partitions of topics that no member reads are assigned to no member.
    STABLE = "STABLE"
    #: Partitions are being assigned.
    REBALANCING = "REBALANCING"
    #: The group has committed offsets, but no member.
    EMPTY = "EMPTY"
    #: Kafka has neither members nor offsets of the group.
    ABSENT = "ABSENT"
    #: Kafka refuses to describe the group.
    UNREADABLE = "UNREADABLE"


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionPosition:
    """The committed offset and the lag of a consumer group in one partition."""

    topic: str
    partition: int
    #: Id of the member that the partition is assigned to; None if it is assigned to none.
    member: str | None
    #: Offset that the group has committed; None if it has committed none.
    committed: int | None
    #: Offset up to which a read_committed consumer can read; None if the leader of the partition does not
    #: respond.
    end: int | None
    #: Lag: number of offsets from the oldest unfinished message to ``end``; None if ``end`` is None. The lag
    #: is 0 if only Kafka's transaction markers are left. Without a committed offset, all messages are
    #: unfinished.
    messages: int | None
    #: Age of the oldest unfinished message; 0 if there is none; None if its time is not known.
    seconds: float | None
    #: Offsets that retention removed before the group had read them.
    removed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsumerFault:
    """A reason why a group does not process its messages, or why an operator must act."""

    #: Name of the kind of fault, which does not change between versions: ``CONSUMER_STOPPED``, …
    code: str
    #: Description with the values found.
    what: str
    #: What the operator should do.
    remedy: str


def find_consumer_faults(
    group: str,
    state: GroupState,
    positions: Sequence[PartitionPosition],
    *,
    topics_missing: Sequence[str] = (),
    letters: int = 0,
    keys_blocked: int = 0,
) -> list[ConsumerFault]:
    """Return the faults of a consumer group, the most severe first.

    Args:
        group: Name of the group.
        state: State of the group.
        positions: The committed offset and the lag of the group in each partition.
        topics_missing: Topics of the group that do not exist, or that this account may not describe.
        letters: Number of unresolved dead letters of the group.
        keys_blocked: Number of keys that these letters block.
    """
    return [
        *_removed(positions),
        *_membership(state, positions),
        *_missing(topics_missing),
        *_partitions(state, positions),
        *_letters(group, letters, keys_blocked),
    ]


def _removed(positions: Sequence[PartitionPosition]) -> Iterator[ConsumerFault]:
    removed = [each for each in positions if each.removed]
    if removed:
        yield ConsumerFault(
            code="MESSAGES_REMOVED",
            what=f"retention removed {sum(each.removed for each in removed)} offsets of {_named(removed)} "
            "before the group had read them",
            remedy="apply the missing events from `domain_events`, and raise retention.ms of the topic",
        )


def _membership(state: GroupState, positions: Sequence[PartitionPosition]) -> Iterator[ConsumerFault]:
    match state:
        case GroupState.EMPTY:
            yield ConsumerFault(
                code="CONSUMER_STOPPED",
                what=f"no consumer of the group is running; messages that wait: {_waiting(positions)}",
                remedy="start a consumer; the log of the consumer that ran last shows why it ended",
            )
        case GroupState.ABSENT:
            yield ConsumerFault(
                code="CONSUMER_ABSENT",
                what="Kafka has neither members nor offsets of the group: no consumer has run for the time "
                "for which the broker keeps offsets (offsets.retention.minutes)",
                remedy="start a consumer: it begins with the first message of each partition, or with "
                "--start latest after the last one, and skips events that the group has processed",
            )
        case GroupState.REBALANCING:
            yield ConsumerFault(
                code="CONSUMER_REBALANCING",
                what="partitions are being assigned to the members",
                remedy="repeat the command; if the state stays, the logs of the consumers show why members "
                "join and leave",
            )
        case GroupState.STABLE | GroupState.UNREADABLE:
            pass


def _missing(topics: Sequence[str]) -> Iterator[ConsumerFault]:
    if topics:
        shown = ", ".join(topics[:_NAMED_MAX]) + (", …" if len(topics) > _NAMED_MAX else "")
        yield ConsumerFault(
            code="TOPIC_MISSING",
            what=f"Kafka shows no topic {shown}",
            remedy="check the name, create the topic, or grant this account the right DESCRIBE on it",
        )


def _partitions(state: GroupState, positions: Sequence[PartitionPosition]) -> Iterator[ConsumerFault]:
    offline = [each for each in positions if each.end is None]
    if offline:
        yield ConsumerFault(
            code="PARTITION_OFFLINE",
            what=f"without a leader, so that it cannot be read: {_named(offline)}",
            remedy="start the brokers that `relaybox topics check` names",
        )
    unread = [each for each in positions if each.member is None and each.messages]
    if unread and state is GroupState.STABLE:
        yield ConsumerFault(
            code="PARTITION_UNASSIGNED",
            what=f"no member reads {_named(unread)}; messages that wait: {_waiting(unread)}",
            remedy="start the consumers with this topic (--topic), or delete the group's offsets of a topic "
            "that it no longer needs with kafka-consumer-groups.sh --delete-offsets",
        )
    late = [each for each in positions if each.member and (each.seconds or 0) > LAG_S]
    if late:
        yield ConsumerFault(
            code="CONSUMER_LAGS",
            what=f"the oldest unfinished message is {max(each.seconds or 0 for each in late):.0f} s old; "
            f"messages that wait: {_waiting(late)} in {_named(late)}",
            remedy="the consumers' logs show handlers that fail or hang; if none does, raise --concurrency "
            "or start more consumers",
        )


def _letters(group: str, letters: int, keys_blocked: int) -> Iterator[ConsumerFault]:
    if letters:
        yield ConsumerFault(
            code="DEAD_LETTERS",
            what=f"{letters} unresolved dead letters block {keys_blocked} keys",
            remedy=f"`relaybox dead-letters list --group {group}` shows the errors; repair the cause, then "
            "replay",
        )


def _waiting(positions: Sequence[PartitionPosition]) -> int:
    return sum(each.messages or 0 for each in positions)


def _named(positions: Sequence[PartitionPosition]) -> str:
    names = [f"{each.topic}/{each.partition}" for each in positions]
    return ", ".join(names[:_NAMED_MAX]) + (", …" if len(names) > _NAMED_MAX else "")
