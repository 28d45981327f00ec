"""After a failover of PostgreSQL, find out from the topics which rows were published (G35)."""

import asyncio
from collections.abc import Collection, Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final
from uuid import UUID

import structlog

from relaybox.db import DedicatedConnection, load_queries
from relaybox.relay._claims import NO_MARKER, OwnedLane
from relaybox.relay._errors import LinkDown, PublishedUnknown
from relaybox.relay._postgres import Lane, explain_missing_right, fetch_rows
from relaybox.settings import KafkaSettings
from relaybox.verify import Reader, TopicHeldBack, TopicMetadata, TopicUnreadable

__all__ = (
    "PublishedEvents",
    "Reconciler",
)

_SQL: Final = load_queries(__package__ or "relaybox.relay", "relay.sql")
#: Seconds before the earliest time at which an unpublished row can have been published: topics are read from
#: there, because a record may be older than its claim, and because clocks differ (records have the time of a
#: relay's host, claims the time of PostgreSQL's host).
_OLDER_S_MAX: Final = 300.0
_log = structlog.get_logger(__name__)


class Reconciler:
    """Mark rows SENT that were published, but whose mark was lost in a failover of PostgreSQL.

    A failover can lose the marks and claims of batches that are in Kafka. The rows of these batches then look
    unpublished, and the marker is the id of a batch that the database does not know. Therefore the relay
    reads the topics of unpublished rows, from 5 minutes before the earliest time at which one of the rows can
    have been published, to their ends. The relay marks each row SENT whose event is on one of these topics.
    """

    def __init__(self, kafka: KafkaSettings, history_id: UUID) -> None:
        self._kafka = kafka
        self.history_id = history_id

    def is_from_another_history(self, lane: OwnedLane) -> bool:
        """Return whether *lane* was last compared with Kafka in another history; False if that is unknown."""
        return lane.history_id not in (None, self.history_id)

    def is_needed(self, lane: OwnedLane, marker: UUID | None) -> bool:
        """Return whether *lane* is from another history, and its last *marker* is not accepted.

        *marker* is the id of the last batch of the lane in Kafka; None: Kafka has no marker of the lane.
        """
        return self.is_from_another_history(lane) and lane.accepted_marker != (marker or NO_MARKER)

    async def settle(
        self, connection: DedicatedConnection, lanes: Collection[Lane], threads: Executor
    ) -> None:
        """Mark the published rows of *lanes* SENT; call this only after their former owners were fenced.

        Args:
            connection: A connection outside a transaction; gets a temporary table.
            lanes: Lanes for which :meth:`is_needed` is True.
            threads: Threads for calls to Kafka.

        Raises:
            LinkDown: The topics cannot be read now.
            PublishedUnknown: Records that are needed may have been removed from a topic.
            DatabaseError: PostgreSQL did not respond, or a right is missing.
        """
        if not lanes:
            return
        numbers, epochs = [lane.lane for lane in lanes], [lane.epoch for lane in lanes]
        rows = await fetch_rows(connection, _SQL["unsettled_topics"], numbers, epochs)
        if not rows:
            return
        since = {row["topic"]: row["since"] - timedelta(seconds=_OLDER_S_MAX) for row in rows}
        _log.warning(
            "relay reads from Kafka which events were published before the failover",
            lanes=numbers,
            topics=sorted(since),
        )
        with explain_missing_right("TEMPORARY on the database"):
            await fetch_rows(connection, _SQL["create_found"])
        in_thread = asyncio.get_running_loop().run_in_executor
        events = PublishedEvents(self._kafka, since)
        found = 0
        try:
            while (published := await in_thread(threads, events.next_ids)) is not None:
                if published:
                    await fetch_rows(connection, _SQL["add_found"], *zip(*published, strict=True))
                    found += len(published)
        finally:
            threads.submit(events.close)
        marked = await fetch_rows(connection, _SQL["mark_found"], numbers, epochs)
        await fetch_rows(connection, _SQL["drop_found"])
        _log.warning("relay has marked rows that were published", rows=len(marked), records=found)


class PublishedEvents:
    """Read the ids of the events on topics, from a start time of each topic, in steps. All methods block."""

    def __init__(self, kafka: KafkaSettings, since: Mapping[str, datetime]) -> None:
        self._kafka = kafka
        self._since = since
        self._reader: Reader | None = None
        #: Held during each call: :meth:`close` may be called while the step of a cancelled caller still runs.
        self._one_call = Lock()

    def next_ids(self) -> list[tuple[str, str]] | None:
        """Return the next pairs of topic and event id; empty if no record arrived yet; None at the end.

        A call returns within seconds even if an open transaction hides later records, because the relay exits
        if a call to Kafka takes 60 s.

        Raises:
            LinkDown: The topics cannot be read now.
            PublishedUnknown: Records that are needed may have been removed from a topic.
        """
        with self._one_call:
            try:
                if self._reader is None:
                    self._reader = self._opened()
                if self._reader.done:
                    return None
                return [
                    (record.topic, record.event_id)
                    for record in self._reader.read()
                    if record.event_id is not None
                ]
            except (TopicUnreadable, TopicHeldBack) as error:
                raise LinkDown(f"the topics cannot be read after a failover: {error}") from error

    def close(self) -> None:
        """Close the connections to Kafka."""
        with self._one_call:
            if self._reader is not None:
                self._reader.close()

    def _opened(self) -> Reader:
        with TopicMetadata(self._kafka) as topics:
            partitions = topics.partitions(self._since)
            starts = _starts(topics, partitions, self._since)
            return Reader(self._kafka, starts, topics.ends(partitions), "read_committed")


def _starts(
    topics: TopicMetadata, partitions: Mapping[str, int], since: Mapping[str, datetime]
) -> dict[tuple[str, int], int]:
    """Return, by topic and partition, the offset of the first record at or after the time of its topic.

    Args:
        topics: Client to read offsets and configuration.
        partitions: Number of partitions by topic.
        since: Time by topic.

    Raises:
        PublishedUnknown: Some of the records at or after that time may have been removed.
    """
    starts: dict[tuple[str, int], int] = {}
    for topic, retention in topics.retention(partitions).items():
        count = {topic: partitions[topic]}
        first, found = topics.beginnings(count), topics.beginnings(count, since[topic])
        age_s = (datetime.now(UTC) - since[topic]).total_seconds()
        if retention.compacted:
            raise PublishedUnknown(
                f"topic {topic} is compacted (cleanup.policy), so that records of published rows may have "
                "been removed; run relaybox verify, then relaybox relay accept"
            )
        cut = retention.by_size and any(found[place] == offset > 0 for place, offset in first.items())
        if cut or age_s > retention.kept_s:
            raise PublishedUnknown(
                f"retention may have removed records of topic {topic} later than {since[topic]:%F %T %Z}, so "
                "that published rows cannot be recognised; run relaybox verify, then relaybox relay accept"
            )
        starts |= found
    return starts
