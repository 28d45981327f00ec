"""Verification of keys with events in two partitions."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from relaybox.db import Database
from relaybox.settings import KafkaSettings, PostgresSettings
from relaybox.verify import Kind, partition_of, verify

from tests.fixtures.relays import put_events, rows_of
from tests.fixtures.topic_records import add_partitions, publish, record_events, run_statement, write_events


@pytest.mark.guarantee("G33")
@pytest.mark.parametrize("reference", ["outbox", "events"])
async def test_keys_over_two_partitions_are_spread(
    database: Database,
    kafka_settings: KafkaSettings,
    make_topic: Callable[..., str],
    postgres_settings: PostgresSettings,
    reference: str,
) -> None:
    topic, keys = make_topic(partitions=8), [f"key-{number}" for number in range(20)]
    await publish(database, kafka_settings, await write_events(database, topic, keys, 2))
    add_partitions(kafka_settings, topic, 16)
    await put_events(database, topic, keys, first=3, count=2)
    await record_events(database)
    later = (await rows_of(database))[40:]
    await publish(database, kafka_settings, later)
    if reference == "events":
        await run_statement(database, "DELETE FROM event_outbox")
    spread = [key for key in keys if partition_of(key, 16) >= 8]
    assert spread

    report = await verify(postgres_settings, kafka_settings, topics=[topic], keys_max=len(keys))
    assert not report.holds(allow_duplicates=True)
    assert {kind: tally.events for kind, tally in report.tallies.items() if tally.events} == {
        Kind.SPREAD: 2 * len(spread)
    }
    assert sorted(finding.key or "" for finding in report.findings) == sorted(spread)
    assert report.published == 80
    for finding in report.findings:
        assert [(one.version, one.partition) for one in finding.examples] == [
            (version, partition_of(finding.key or "", 16)) for version in (3, 4)
        ]

    since = datetime.now(UTC) + timedelta(hours=1)
    assert (await verify(postgres_settings, kafka_settings, topics=[topic], since=since)).holds()
