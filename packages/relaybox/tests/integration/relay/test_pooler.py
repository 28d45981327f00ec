"""A relay whose database is behind a PgBouncer in transaction mode."""

import asyncpg
from relaybox.db import Database
from relaybox.relay import Relay
from relaybox.settings import KafkaSettings, PostgresSettings, RelaySettings

from tests.fixtures.pgbouncer import StartPgBouncer, apply_suggested_remedy
from tests.fixtures.relays import put_events, read_topic, running, wait_until_all_sent


async def test_relay_behind_a_transaction_pooler_publishes_all_in_order(
    start_pgbouncer: StartPgBouncer,
    postgres_settings: PostgresSettings,
    superuser: asyncpg.Connection,
    kafka_settings: KafkaSettings,
    topic: str,
) -> None:
    pooler = await start_pgbouncer("transaction")
    database = Database(pooler.settings(postgres_settings))
    await apply_suggested_remedy(database, superuser)
    async with running(Relay(database, kafka_settings, RelaySettings(poll_interval=0.1))):
        await put_events(database, topic, ["a", "b"], count=20)
        await wait_until_all_sent(database)
    await database.close()
    records = read_topic(kafka_settings.bootstrap_servers, topic)
    for key in ("a", "b"):
        assert [record.version for record in records if record.key == key] == list(range(1, 21))
