"""PENDING rows with erased content are published like others, and ``verify`` reports no difference."""

import json

from confluent_kafka import Consumer
from relaybox.db import Database
from relaybox.events import erase
from relaybox.operations import Selection, retry
from relaybox.relay import Relay
from relaybox.settings import KafkaSettings, PostgresSettings, RelaySettings
from relaybox.verify import verify

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.outbox_rows import fail_rows
from tests.fixtures.relays import rows_of, running, wait_until_all_sent
from tests.fixtures.topic_records import write_events


def payloads(kafka: KafkaSettings, topic: str, count: int) -> dict[tuple[str, int], object]:
    """Return the payload of each message, by key and version."""
    consumer = Consumer({**kafka.client_config(), "group.id": "reader", "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe([topic])
        values = [json.loads(message.value()) for message in consumer.consume(count, WAIT_S)]
    finally:
        consumer.close()
    return {(value["aggregate_id"], value["version"]): value["payload"] for value in values}


async def test_erased_pending_rows_are_published_marked_and_verified(
    database: Database, postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str
) -> None:
    rows = await write_events(database, topic, ["a", "b"], 3)
    [failed, *_] = [row for row in rows if row["key"] == "a"]
    await fail_rows(database, [failed["seq"]])
    await database.run_in_transaction(
        lambda db: erase(db, "GENESIS_SESSION", ["a"], actor="ann", reason="purged"),
        isolation="READ COMMITTED",
    )
    async with database.connection() as connection:
        await retry(connection, Selection(keys=("a",)), by="suite")

    async with running(Relay(database, kafka_settings, RelaySettings(poll_interval=0.1))):
        await wait_until_all_sent(database)

    assert len(await rows_of(database, "status = 'SENT'")) == 6
    told = payloads(kafka_settings, topic, 6)
    assert {one for one, payload in told.items() if payload == {"erased": True}} == {
        ("a", v) for v in (1, 2, 3)
    }
    report = await verify(postgres_settings, kafka_settings, topics=[topic])
    assert report.holds()
    assert (report.events, report.published) == (6, 6)


async def test_erasing_published_events_changes_no_result_of_verify(
    database: Database, postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str
) -> None:
    await write_events(database, topic, ["a"], 3)
    async with running(Relay(database, kafka_settings, RelaySettings(poll_interval=0.1))):
        await wait_until_all_sent(database)
    await database.run_in_transaction(
        lambda db: erase(db, "GENESIS_SESSION", ["a"], actor="ann", reason="purged"),
        isolation="READ COMMITTED",
    )
    report = await verify(postgres_settings, kafka_settings, topics=[topic])
    assert report.holds()
    assert (report.events, report.published) == (3, 3)
