"""The server fixtures: a database and a topic per test."""

from confluent_kafka.admin import AdminClient
from relaybox.db import Database
from relaybox.settings import KafkaSettings, PostgresSettings

from tests.fixtures.bounds import WAIT_S


async def test_each_test_has_its_own_migrated_database(database: Database) -> None:
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM domain_events") == 0
        assert await connection.fetchval("SELECT current_user") == "relaybox"


def test_owner_of_tables_is_not_the_role_of_services(postgres_settings: PostgresSettings) -> None:
    assert postgres_settings.as_owner().user == "relaybox_owner"
    assert postgres_settings.user == "relaybox"


def test_topic_fixture_has_the_requested_partitions(make_topic, kafka_settings: KafkaSettings) -> None:
    name = make_topic(partitions=3, max_message_bytes="2000")

    with AdminClient({"bootstrap.servers": kafka_settings.bootstrap_servers}) as client:
        assert len(client.list_topics(name, timeout=WAIT_S).topics[name].partitions) == 3
