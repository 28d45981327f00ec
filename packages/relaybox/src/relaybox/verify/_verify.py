"""Comparing the tables with the topics (G33)."""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final

from relaybox.settings import KafkaSettings, PostgresSettings
from relaybox.verify._records import Partition, TopicRecord, partition_of
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
    """Compare ``domain_events`` and ``event_outbox`` with what a reader of *topics* finds.

    Judges events of *key* alone if given, and asks for events *since* a time only (an aware one).
    Topics that rows of the outbox name are read too, if they exist. The report shows *keys_max* keys of
    each kind and counts all. Works on a running system and changes nothing: it holds one connection
    with temporary tables, one snapshot for as long as the tables are copied, and no consumer group.

    Raises:
        TopicMissing: one of *topics* does not exist.
        TopicUnreadable: Kafka is away or refuses.
        TopicHeldBack: an open transaction hides the end of a topic.
        TablesUnreadable: the tables do not exist, or this user may not read them.
        DatabaseUnavailable: PostgreSQL is away.
    """
    began_s = time.monotonic()
    with TopicMetadata(kafka) as log:
        declared = await asyncio.to_thread(log.existing, topics)
        async with Tables.open(postgres) as tables:
            # Offsets before and after the snapshot: a record before the first is of an event that the tables
            # knew or never will; a row that was SENT by then has its record before the second.
            known = await asyncio.to_thread(log.ends, declared)
            snapshot = await tables.take_snapshot(key, since)
            loss = await tables.possible_loss(since)
            sources = loss.sources if loss is not None else frozenset[str]()
            reading = await asyncio.to_thread(
                _TopicScan, kafka, log, declared, snapshot, since, isolation, sources
            )
            records = await _add_records(tables, reading.reader, key)
            await tables.compare(known, loss)
            await _set_aside_expired(tables, reading)
            tallies, duplicates = await tables.tallies()
            return Report(
                topics=tuple(sorted(reading.topics)),
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
    """What is read: from where, to where, and which partitions have lost their beginning."""

    def __init__(
        self,
        kafka: KafkaSettings,
        log: TopicMetadata,
        declared: Mapping[str, int],
        snapshot: Snapshot,
        since: datetime | None,
        isolation: Isolation,
        sources: Collection[str],
    ) -> None:
        self.began_at = datetime.now(UTC)
        self.topics = {**declared, **log.partitions(snapshot.topics)}
        ends = log.ends(self.topics)
        first = log.beginnings(self.topics)
        starts = first if since is None else log.beginnings(self.topics, since - CLOCKS_DIFFER)
        self.reader = Reader(kafka, starts, ends, isolation, sources)
        self._truncated = {place for place, offset in first.items() if 0 < offset == starts[place]}

    def horizons(self) -> dict[Partition, datetime]:
        """How far back each partition reaches that has lost its beginning."""
        now_ms = self.began_at.timestamp() * 1_000
        first_at_ms = self.reader.first_at_ms
        return {
            place: datetime.fromtimestamp(first_at_ms.get(place, now_ms) / 1_000, UTC)
            for place in self._truncated
        }


async def _add_records(tables: Tables, reader: Reader, key: str | None) -> int:
    """Add what *reader* finds to *tables*, records of *key* alone if given; return how many were read."""
    records = 0
    async with aclosing(_batches(reader)) as batches:
        async for batch in batches:
            records += len(batch)
            await tables.add(batch if key is None else [one for one in batch if one.key == key])
    return records


async def _batches(reader: Reader) -> AsyncGenerator[list[TopicRecord]]:
    """What *reader* finds; it reads on while whoever asked is busy with the last batch."""
    ahead = asyncio.create_task(asyncio.to_thread(reader.read))
    try:
        while True:
            batch = await asyncio.shield(ahead)  # a thread cannot be cancelled, only waited for
            if not batch and reader.done:
                return
            ahead = asyncio.create_task(asyncio.to_thread(reader.read))
            if batch:
                yield batch
    finally:
        await asyncio.gather(ahead, return_exceptions=True)
        await asyncio.to_thread(reader.close)


async def _set_aside_expired(tables: Tables, reading: _TopicScan) -> None:
    """Tell what is older than the topics' retention from what is lost."""
    horizons = reading.horizons()
    if not horizons:
        return
    async with aclosing(tables.keys_with_lost_events()) as pages:
        async for page in pages:
            await tables.add_horizons(_horizons_of(page, reading.topics, horizons))
    for topic in reading.topics:
        of_topic = [at for (name, _), at in horizons.items() if name == topic]
        if of_topic:
            await tables.add_horizons([(topic, "", max(of_topic))])
    await tables.set_aside_expired()


def _horizons_of(
    keys: Iterable[str], topics: Mapping[str, int], horizons: Mapping[Partition, datetime]
) -> Iterable[Horizon]:
    for key in keys:
        for topic, partitions in topics.items():
            at = horizons.get((topic, partition_of(key, partitions)))
            if at is not None:
                yield topic, key, at
