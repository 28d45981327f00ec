"""Report the state and the lag of consumer groups."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from time import monotonic, time
from typing import Final, NamedTuple

from confluent_kafka import ConsumerGroupState

from relaybox.db import Executor, load_queries
from relaybox.operations._consumer_faults import (
    ConsumerFault,
    GroupState,
    PartitionPosition,
    find_consumer_faults,
)
from relaybox.operations._errors import GroupUnknown, GroupUnreadable
from relaybox.operations._group_reader import (
    FirstMessage,
    FirstMessages,
    GroupDescription,
    GroupReader,
    MemberDescription,
    Partition,
)
from relaybox.settings import KafkaSettings

__all__ = (
    "CONSUMER_LETTERS_MAX",
    "ConsumerLag",
    "ConsumerMember",
    "ConsumerStatus",
    "consumer_lag",
    "consumer_status",
    "list_consumers",
)

#: Largest number of dead letters that a :class:`ConsumerStatus` counts, which bounds the cost of the query.
CONSUMER_LETTERS_MAX: Final = 10_000
_GROUPS_MAX: Final = 100
_PARTITIONS_MAX: Final = 10_000
#: Largest number of partitions of a group whose oldest unfinished message is read.
_AGES_MAX: Final = 500
#: Seconds in which the oldest unfinished messages are read, for all groups together.
_AGES_S: Final = 8.0
_SQL: Final = load_queries(__package__ or "relaybox.operations", "consumers.sql")
#: States by their names in Kafka. All other states of Kafka are steps of a rebalance.
_STATES: Final = {
    ConsumerGroupState.STABLE: GroupState.STABLE,
    ConsumerGroupState.EMPTY: GroupState.EMPTY,
    ConsumerGroupState.DEAD: GroupState.ABSENT,
}
_NO_GROUP: Final = GroupDescription(state=ConsumerGroupState.DEAD, members=())
#: Stands for the oldest unfinished message of a partition in which it was not read.
_UNREAD: Final = FirstMessage(offset=0, created_at_s=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsumerMember:
    """A consumer of a group."""

    member_id: str
    client_id: str
    #: Address from which the consumer is connected.
    host: str
    #: Numbers of the partitions assigned to the consumer, by topic.
    partitions: Mapping[str, Sequence[int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsumerLag:
    """Lag of a consumer group in each partition of its topics.

    The topics of a group are those of the partitions that are assigned to its members, or in which the group
    has committed an offset.
    """

    group: str
    state: GroupState
    #: Sum of the lags of :attr:`partitions`, in messages.
    messages: int
    #: Age of the oldest unfinished message; 0 if there is none; None if no age is known.
    seconds: float | None
    #: The first 10,000 partitions, ordered by topic and number.
    partitions: Sequence[PartitionPosition]
    #: Number of partitions, including those not listed.
    partitions_total: int
    #: Topics of the group that do not exist, or that this account may not describe.
    topics_missing: Sequence[str]
    #: Why some ages are unknown; None if all are known.
    ages_missing: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsumerStatus:
    """State of a consumer group, its dead letters, and its faults."""

    group: str
    state: GroupState
    members: Sequence[ConsumerMember]
    #: Number of partitions of the group's topics; None if the group is UNREADABLE.
    partitions: int | None
    #: As in :class:`ConsumerLag`; None if the group is UNREADABLE.
    lag_messages: int | None
    lag_seconds: float | None
    #: Unresolved dead letters, counted up to 10,000, and the keys that they block.
    letters: int
    keys_blocked: int
    #: The most severe first; empty if no operator has to act.
    faults: Sequence[ConsumerFault]


@dataclass(frozen=True, kw_only=True, slots=True)
class _KafkaGroup:
    """Lag and members of a group, as read from Kafka."""

    lag: ConsumerLag
    members: tuple[ConsumerMember, ...]


class _Offsets(NamedTuple):
    """Offsets of one partition; None for those that are not known."""

    committed: int | None
    beginning: int | None
    end: int | None

    @property
    def start(self) -> int | None:
        """The first offset that the group has not finished; None if there is none, or if it is not known."""
        if self.beginning is None or self.end is None:
            return None
        start = max(self.beginning, self.committed or 0)
        return start if start < self.end else None


async def consumer_lag(kafka: KafkaSettings, group: str) -> ConsumerLag:
    """Return the lag of a consumer group in each partition; read only from Kafka, not from PostgreSQL.

    A message belongs to the lag until a consumer has committed an offset after it. Usually the consumer does
    this within a second after this message and all earlier messages of the partition are finished. The call
    takes at most a minute.

    Raises:
        GroupUnknown: Kafka has no such group.
        GroupUnreadable: Kafka refuses to describe the group or its topics.
        KafkaUnavailable: No broker responds.
    """
    if not group:
        raise _unknown(group)
    found = (await _read_group(kafka, group)).lag
    if found.state is GroupState.ABSENT:
        raise _unknown(group)
    return found


async def consumer_status(db: Executor, kafka: KafkaSettings, group: str) -> ConsumerStatus:
    """Return members, lag, dead letters and faults of a consumer group.

    Args:
        db: A connection.
        kafka: The brokers.
        group: Name of the group.

    Raises:
        GroupUnknown: Neither Kafka nor the database has such a group.
        GroupUnreadable: Kafka refuses to describe the group or its topics.
        KafkaUnavailable: No broker responds.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    if not group:
        raise _unknown(group)
    [row] = await db.fetch(_SQL["letters_of_groups"], [group], CONSUMER_LETTERS_MAX)
    found = await _read_group(kafka, group)
    if found.lag.state is GroupState.ABSENT and not row["known"]:
        raise _unknown(group)
    return _status(found, letters=row["letters"], keys_blocked=row["keys"])


async def list_consumers(db: Executor, kafka: KafkaSettings) -> list[ConsumerStatus]:
    """Return the status of each group that has consumed events or parked messages in this database.

    At most the first 100 groups by name are returned. The function finds a group only by its records in the
    database. Groups of other databases, groups that have processed nothing yet, and groups whose records were
    all removed by retention are therefore left out. A group that Kafka refuses to describe has the state
    UNREADABLE.

    Raises:
        GroupUnreadable: Kafka refuses to describe a topic.
        KafkaUnavailable: No broker responds.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    groups = [row["name"] for row in await db.fetch(_SQL["known_groups"], _GROUPS_MAX)]
    if not groups:
        return []
    rows = await db.fetch(_SQL["letters_of_groups"], groups, CONSUMER_LETTERS_MAX)
    found = await asyncio.to_thread(_read_groups, kafka, groups)
    statuses: list[ConsumerStatus] = []
    for row in rows:
        group, letters, keys_blocked = found[row["name"]], row["letters"], row["keys"]
        if isinstance(group, GroupUnreadable):
            statuses.append(_unreadable(row["name"], group, letters=letters, keys_blocked=keys_blocked))
        else:
            statuses.append(_status(group, letters=letters, keys_blocked=keys_blocked))
    return statuses


async def _read_group(kafka: KafkaSettings, group: str) -> _KafkaGroup:
    found = (await asyncio.to_thread(_read_groups, kafka, [group]))[group]
    if isinstance(found, GroupUnreadable):
        raise found
    return found


def _unknown(group: str) -> GroupUnknown:
    return GroupUnknown(
        f"there is no consumer group {group!r}: compare the name with the list of `relaybox consumer "
        "status`; a new group exists as soon as its first consumer is running"
    )


def _status(found: _KafkaGroup, *, letters: int, keys_blocked: int) -> ConsumerStatus:
    lag = found.lag
    faults = find_consumer_faults(
        lag.group,
        lag.state,
        lag.partitions,
        topics_missing=lag.topics_missing,
        letters=letters,
        keys_blocked=keys_blocked,
    )
    return ConsumerStatus(
        group=lag.group,
        state=lag.state,
        members=found.members,
        partitions=lag.partitions_total,
        lag_messages=lag.messages,
        lag_seconds=lag.seconds,
        letters=letters,
        keys_blocked=keys_blocked,
        faults=faults,
    )


def _unreadable(group: str, refused: GroupUnreadable, *, letters: int, keys_blocked: int) -> ConsumerStatus:
    return ConsumerStatus(
        group=group,
        state=GroupState.UNREADABLE,
        members=(),
        partitions=None,
        lag_messages=None,
        lag_seconds=None,
        letters=letters,
        keys_blocked=keys_blocked,
        faults=[ConsumerFault(code=refused.error_code, what=refused.what, remedy=refused.remedy)],
    )


def _read_groups(settings: KafkaSettings, groups: Sequence[str]) -> dict[str, _KafkaGroup | GroupUnreadable]:
    with GroupReader(settings) as reader:
        described = dict.fromkeys(groups, _NO_GROUP) | reader.describe(groups)
        committed = reader.committed(groups)
        topics = {group: _topics(described[group], committed[group]) for group in groups}
        with_leader = reader.partitions(frozenset[str]().union(*topics.values()))
        chosen = dict(islice(with_leader.items(), _PARTITIONS_MAX))
        with_leaders = [partition for partition, has_leader in chosen.items() if has_leader]
        beginnings, ends = reader.beginnings(with_leaders), reader.ends(with_leaders)
    with closing(FirstMessages(settings, monotonic() + _AGES_S)) as first_messages:
        found: dict[str, _KafkaGroup | GroupUnreadable] = {**reader.refused}
        for group in groups:
            if group in reader.refused:
                continue
            offsets = {
                at: _Offsets(committed[group].get(at), beginnings.get(at), ends.get(at))
                for at in chosen
                if at[0] in topics[group]
            }
            lag = _lag(
                group,
                described[group],
                offsets,
                first_messages,
                partitions_total=sum(topic in topics[group] for topic, _ in with_leader),
                topics_missing=sorted(topics[group] - {topic for topic, _ in with_leader}),
            )
            found[group] = _KafkaGroup(lag=lag, members=tuple(map(_member, described[group].members)))
    return found


def _topics(described: GroupDescription, committed: Mapping[Partition, int]) -> frozenset[str]:
    assigned = (topic for member in described.members for topic, _ in member.partitions)
    return frozenset((*assigned, *(topic for topic, _ in committed)))


def _member(member: MemberDescription) -> ConsumerMember:
    numbers: dict[str, list[int]] = {}
    for topic, number in member.partitions:
        numbers.setdefault(topic, []).append(number)
    return ConsumerMember(
        member_id=member.member_id, client_id=member.client_id, host=member.host, partitions=numbers
    )


def _lag(
    group: str,
    described: GroupDescription,
    offsets: Mapping[Partition, _Offsets],
    first_messages: FirstMessages,
    *,
    partitions_total: int,
    topics_missing: Sequence[str],
) -> ConsumerLag:
    behind = {at: start for at, each in offsets.items() if (start := each.start) is not None}
    first, ages_missing = first_messages.read(dict(islice(behind.items(), _AGES_MAX)))
    if ages_missing is None and len(behind) > _AGES_MAX:
        ages_missing = f"only {_AGES_MAX} of {len(behind)} partitions with a lag are read"
    owners = {at: member.member_id for member in described.members for at in member.partitions}
    now_s = time()
    positions = [
        _position(at, owners.get(at), each, first.get(at, _UNREAD), now_s) for at, each in offsets.items()
    ]
    waiting = [each for each in positions if each.messages]
    ages = [each.seconds for each in waiting if each.seconds is not None]
    return ConsumerLag(
        group=group,
        state=_STATES.get(described.state, GroupState.REBALANCING),
        messages=sum(each.messages or 0 for each in positions),
        seconds=max(ages, default=None if waiting else 0.0),
        partitions=positions,
        partitions_total=partitions_total,
        topics_missing=topics_missing,
        ages_missing=ages_missing,
    )


def _position(
    at: Partition, owner: str | None, offsets: _Offsets, first: FirstMessage | None, now_s: float
) -> PartitionPosition:
    """Return the position in one partition.

    Args:
        at: The partition.
        owner: Id of the member that the partition is assigned to.
        offsets: Offsets of the partition.
        first: The oldest unfinished message; None if there is none, ``_UNREAD`` if it is not known.
        now_s: The time, in seconds since 1970.
    """
    start, end = offsets.start, offsets.end
    messages, seconds = (0, 0.0) if end is not None else (None, None)
    # A first message at or after the end arrived after the end was read, so it does not belong to this lag.
    if start is not None and end is not None and first is not None and first.offset < end:
        messages = end - max(start, first.offset)
        seconds = None if first.created_at_s is None else max(0.0, now_s - first.created_at_s)
    return PartitionPosition(
        topic=at[0],
        partition=at[1],
        member=owner,
        committed=offsets.committed,
        end=end,
        messages=messages,
        seconds=seconds,
        removed=max(0, (offsets.beginning or 0) - offsets.committed) if offsets.committed is not None else 0,
    )
