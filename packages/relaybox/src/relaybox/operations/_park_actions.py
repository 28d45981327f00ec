"""Request that the consumers of a group park a message instead of handling it."""

import asyncio
from contextlib import closing
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.db import Database, Executor, executor_of, load_queries
from relaybox.operations._errors import GroupUnknown, KafkaUnavailable, ParkingRefused
from relaybox.operations._flow_actions import record_act
from relaybox.operations._group_reader import FirstMessage, FirstMessages, GroupReader
from relaybox.outbox import is_topic_name
from relaybox.settings import KafkaSettings

__all__ = ("MessagePlace", "MessageToPark", "preview_parking", "request_parking")

_SQL: Final = load_queries(__package__ or "relaybox.operations", "dead_letters.sql")
#: Time limit of reading the message.
_READ_S: Final = 8.0


@dataclass(frozen=True, kw_only=True, slots=True)
class MessagePlace:
    """A message in Kafka, and the consumer group that must not call a handler for this message."""

    group: str
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageToPark:
    """A message that a group has not finished, without its content, which may be personal data."""

    place: MessagePlace
    #: Bytes that are not UTF-8 are written as ``\\xff``; None for a message without a key.
    key: str | None
    #: The ``ce_type`` header; None if it is missing.
    event_type: str | None
    #: Offset that the group has committed in the partition; None if it has committed none.
    committed: int | None
    #: The operator of an earlier request to park this message; None if there was no request.
    requested_by: str | None


async def preview_parking(db: Executor, kafka: KafkaSettings, place: MessagePlace) -> MessageToPark:
    """Return the message that :func:`request_parking` would request to park; change nothing.

    Raises:
        ParkingRefused: The group has committed a later offset or has parked the message already, or Kafka has
            no such message, partition or topic.
        GroupUnknown: Kafka has no such group.
        GroupUnreadable: Kafka refuses to describe the group or its topics.
        KafkaUnavailable: No broker responds, or the message cannot be read within 8 s.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    if not is_topic_name(place.topic):
        raise ParkingRefused(
            f"{place.topic!r} is not a topic name: Kafka takes 1 to 249 of the characters A-Z a-z 0-9 . _ -; "
            "name the topic as `relaybox consumer status` does"
        )
    [row] = await db.fetch(_SQL["parked_or_requested"], *asdict(place).values())
    if row["letter_id"] is not None:
        raise ParkingRefused(
            f"{place} is already dead letter {row['letter_id']} of group {place.group!r}; "
            f"`relaybox dead-letters show {row['letter_id']}` shows it"
        )
    committed, message = await asyncio.to_thread(_read, kafka, place)
    if committed is not None and committed > place.offset:
        raise ParkingRefused(
            f"group {place.group!r} has passed {place}: its committed offset is {committed}; name the offset "
            "of an unfinished message"
        )
    return MessageToPark(
        place=place,
        key=None if message.key is None else message.key.decode(errors="backslashreplace"),
        event_type=message.event_type,
        committed=committed,
        requested_by=row["requested_by"],
    )


async def request_parking(
    database: Database, kafka: KafkaSettings, place: MessagePlace, *, by: str, reason: str
) -> MessageToPark:
    """Request that a consumer of the group parks a message instead of calling its handler.

    Use this for a message that consumers cannot park by themselves, because it ends their process outside the
    handler (in an upcaster or a validator), or because its handler blocks the event loop. A running consumer
    reads the request within a second. A consumer that starts later reads the request before any message. The
    message becomes a dead letter after the earlier messages of its key, and the later messages of the key are
    parked behind it. A handler that already processes the message is not interrupted: if it succeeds, nothing
    is parked.

    Args:
        database: The database; the call takes one transaction.
        kafka: The brokers.
        place: The message and the group.
        by: Name of the operator, for the record of the action and the text of the letter's error.
        reason: Reason, for the same records.

    Returns:
        The message. If its ``requested_by`` is set, the parking was requested before, and nothing was
        changed.

    Raises:
        ParkingRefused, GroupUnknown, GroupUnreadable, KafkaUnavailable, DatabaseError: As in
            :func:`preview_parking`.
    """
    async with database.connection() as connection:
        message = await preview_parking(connection, kafka, place)

    async def work(db: AsyncSession) -> None:
        values = asdict(place)
        if await executor_of(db).fetch(_SQL["request_parking"], *values.values(), by, reason):
            await record_act(db, by, "park", reason, {**values, "event_type": message.event_type})

    await database.run_in_transaction(work)
    return message


def _read(settings: KafkaSettings, place: MessagePlace) -> tuple[int | None, FirstMessage]:
    """Return the offset that the group has committed in the partition (None: none), and the message."""
    at = (place.topic, place.partition)
    with GroupReader(settings) as reader:
        committed, known = reader.committed([place.group])[place.group], reader.describe([place.group])
        if place.group in reader.refused:
            raise reader.refused[place.group]
        if not committed and place.group not in known:
            raise GroupUnknown(
                f"there is no consumer group {place.group!r}: compare the name with the list of `relaybox "
                "consumer status`"
            )
        if at not in reader.partitions([place.topic]):
            raise ParkingRefused(
                f"Kafka shows no partition {place.partition} of topic {place.topic!r}; name a partition that "
                "`relaybox consumer lag` lists"
            )
    with closing(FirstMessages(settings, monotonic() + _READ_S)) as messages:
        found, missing = messages.read({at: place.offset})
    if missing is not None:
        raise KafkaUnavailable(
            f"{place} cannot be read: {missing}; check that the leader of this partition is up and that this "
            "account has the right READ on the topic"
        )
    message = found[at]
    if message is None or message.offset != place.offset:
        after = "" if message is None else f"; the next message is at offset {message.offset}"
        raise ParkingRefused(f"Kafka has no message {place}{after}; name the offset of an unfinished message")
    return committed.get(at), message
