"""The steps of a verification (G33)."""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final

from relaybox.kafka import partition_of
from relaybox.settings import KafkaSettings, PostgresSettings
from relaybox.verify._records import Partition, TopicRecord
from relaybox.verify._report import Isolation, Kind, Report
from relaybox.verify._tables import CLOCKS_DIFFER, Horizon, Snapshot, Tables
from relaybox.verify._topics import Reader, TopicMetadata

__all__ = ("verify",)

_MISSING: Final = (Kind.LOST, Kind.PENDING, Kind.FAILED, Kind.SKIPPED, Kind.BEYOND_RETENTION)


async def verify(
    postgres: PostgresSettings,
    kafka: KafkaSettings,
    *,
    topics: Iterable[str],
    key: str | None = None,
    since: datetime | None = None,
    isolation: Isolation = "read_committed",
    keys_max: int = 20,
) -> Report:
    """Compare ``domain_events`` and ``event_outbox`` with the records of *topics*.

    Works on a running system and changes nothing. The verification needs one PostgreSQL connection with
    temporary tables, holds a snapshot only while it copies the tables, and joins no consumer group.

    Args:
        postgres: The database.
        kafka: The brokers.
        topics: Topics to read. Other topics that outbox rows name are read too, if they exist.
        key: Verify only events of this key; None for all keys.
        since: Verify only events written since this time-zone-aware time; None for all events.
        isolation: Isolation level of the Kafka consumer.
        keys_max: Maximum number of keys in ``Report.findings`` for each :class:`Kind` of deviation, such as
            LOST; ``Report.tallies`` counts all of them.

    Raises:
        TopicMissing: One of *topics* does not exist, or this account has no right to describe it.
        TopicUnreadable: Kafka is unreachable, refuses access, or removed records before they were read.
        TopicHeldBack: For over 75 s, an open transaction has hidden the end of a partition.
        TablesUnreadable: The tables do not exist, this role lacks a right, or the server is a standby.
        DatabaseUnavailable: PostgreSQL is unreachable.
    """
    began_s = time.monotonic()
    with TopicMetadata(kafka) as metadata:
        declared = await asyncio.to_thread(metadata.existing, topics)
        async with Tables.open(postgres) as tables:
            # End offsets are read before and after the snapshot. The event of a record before ends_before was
            # committed before the snapshot. _TopicScan reads the end offsets after the snapshot: a row that
            # is SENT in the snapshot has its record before these offsets, up to which the reader reads.
            ends_before = await asyncio.to_thread(metadata.ends, declared)
            snapshot = await tables.take_snapshot(key, since)
            loss = await tables.possible_loss(since)
            sources = loss.sources if loss is not None else frozenset[str]()
            scan = await asyncio.to_thread(
                _TopicScan, kafka, metadata, declared, snapshot, since, isolation, sources
            )
            records = await _add_records(tables, scan.reader, key)
            await tables.compare(ends_before, loss)
            await _set_aside_expired(tables, scan)
            tallies, duplicates = await tables.tallies()
            return Report(
                topics=tuple(sorted(scan.topics)),
                isolation=isolation,
                snapshot_at=tables.started_at,
                elapsed_s=time.monotonic() - began_s,
                events=snapshot.events,
                published=snapshot.events - sum(tallies[kind].events for kind in _MISSING),
                records=records,
                duplicates=duplicates,
                tallies=tallies,
                findings=await tables.findings(keys_max),
            )


class _TopicScan:
    """The offsets to read in each partition, and the partitions from which retention removed records."""

    def __init__(
        self,
        kafka: KafkaSettings,
        metadata: TopicMetadata,
        declared: Mapping[str, int],
        snapshot: Snapshot,
        since: datetime | None,
        isolation: Isolation,
        sources: Collection[str],
    ) -> None:
        self.began_at = datetime.now(UTC)
        self.topics = {**declared, **metadata.partitions(snapshot.topics)}
        ends = metadata.ends(self.topics)
        first = metadata.beginnings(self.topics)
        starts = first if since is None else metadata.beginnings(self.topics, since - CLOCKS_DIFFER)
        self.reader = Reader(kafka, starts, ends, isolation, sources)
        self._truncated = {
            partition for partition, offset in first.items() if 0 < offset == starts[partition]
        }

    def horizons(self) -> dict[Partition, datetime]:
        """Return, for each partition from which retention removed records, the time of the oldest record.

        If no record of a partition was read, its time is the time at which the scan began.
        """
        now_ms = self.began_at.timestamp() * 1_000
        first_at_ms = self.reader.first_at_ms
        return {
            partition: datetime.fromtimestamp(first_at_ms.get(partition, now_ms) / 1_000, UTC)
            for partition in self._truncated
        }


async def _add_records(tables: Tables, reader: Reader, key: str | None) -> int:
    """Copy the records that *reader* reads to a temporary table; return the number of records read.

    If *key* is not None, records of other keys are read, but not copied.
    """
    records = 0
    async with aclosing(_batches(reader)) as batches:
        async for batch in batches:
            records += len(batch)
            await tables.add(batch if key is None else [record for record in batch if record.key == key])
    return records


async def _batches(reader: Reader) -> AsyncGenerator[list[TopicRecord]]:
    """Yield batches of records; a thread reads the next batch while the caller processes the current one."""
    next_batch = asyncio.create_task(asyncio.to_thread(reader.read))
    try:
        while True:
            batch = await asyncio.shield(next_batch)  # a thread cannot be cancelled
            if not batch and reader.done:
                return
            next_batch = asyncio.create_task(asyncio.to_thread(reader.read))
            if batch:
                yield batch
    finally:
        await asyncio.gather(next_batch, return_exceptions=True)
        await asyncio.to_thread(reader.close)


async def _set_aside_expired(tables: Tables, scan: _TopicScan) -> None:
    """Reclassify lost events as beyond retention if they are older than their partition's oldest record."""
    horizons = scan.horizons()
    if not horizons:
        return
    async with aclosing(tables.keys_with_lost_events()) as pages:
        async for page in pages:
            await tables.add_horizons(_horizons_of(page, scan.topics, horizons))
    for topic in scan.topics:
        of_topic = [at for (name, _), at in horizons.items() if name == topic]
        if of_topic:
            await tables.add_horizons([(topic, "", max(of_topic))])
    await tables.set_aside_expired()


def _horizons_of(
    keys: Iterable[str], topics: Mapping[str, int], horizons: Mapping[Partition, datetime]
) -> Iterable[Horizon]:
    """Yield, for each topic and each of *keys*, the time of the oldest record in the partition of the key.

    Args:
        keys: Keys of events.
        topics: Number of partitions of each topic.
        horizons: Time of the oldest record, by partition. Partitions from which retention removed no record
            are missing; nothing is yielded for their keys.
    """
    for key in keys:
        for topic, partitions in topics.items():
            at = horizons.get((topic, partition_of(key, partitions)))
            if at is not None:
                yield topic, key, at
