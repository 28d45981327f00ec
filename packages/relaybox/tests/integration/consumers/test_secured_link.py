"""From the outbox to a handler over a protected link, and a consumer that is not let in."""

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr
from relaybox.consumers import ConsumerSignal, KafkaRefused, subscribe
from relaybox.db import Database
from relaybox.relay import Relay
from relaybox.settings import KafkaSettings, RelaySettings
from structlog.testing import capture_logs

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.certificates import Certificates
from tests.fixtures.events import CREATED, effects, make_event, publish, record_effect
from tests.fixtures.relays import put_events, rows_of, running
from tests.fixtures.waiting import eventually


@pytest.fixture
def kafka_settings(scram_settings: KafkaSettings) -> KafkaSettings:
    """By SCRAM over TLS, for relay, consumer and topics."""
    return scram_settings


async def test_events_reach_a_handler_by_scram_over_tls(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    await put_events(database, topic, ["a"], count=3)
    handler = subscribe(CREATED, group=group)(record_effect)
    async with running(Relay(database, kafka_settings, RelaySettings())), start_consumer(handler) as consumer:
        await consumer.signals.wait_for(ConsumerSignal.COMMITTED, 3)
    written = [row["payload"]["event_id"] for row in await rows_of(database)]
    assert [str(event) for event in await effects(database)] == written


async def test_wrong_password_ends_the_consumer_and_names_the_setting(
    kafka_settings: KafkaSettings, start_consumer
) -> None:
    wrong = kafka_settings.model_copy(update={"sasl_password": SecretStr("a-password-that-must-not-leak")})
    async with start_consumer(record_effect, settings=wrong, assigned=False) as consumer:
        with pytest.raises(
            KafkaRefused, match="check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
        ) as refused:
            await consumer.ended()
    assert "a-password-that-must-not-leak" not in str(refused.value)


async def test_untrusted_broker_makes_the_consumer_wait_and_name_the_setting(
    kafka_settings: KafkaSettings, certificates: Certificates, start_consumer
) -> None:
    wrong = kafka_settings.model_copy(update={"ssl_ca_file": certificates.other_ca})

    async def told() -> bool:
        return any("check KAFKA_SSL_CA_FILE" in line.get("reason", "") for line in lines)

    with capture_logs() as lines:
        async with start_consumer(record_effect, settings=wrong, assigned=False) as consumer:
            await eventually("a line about the authority", told)
            assert not consumer.work.done()


async def test_waiting_consumer_uses_a_renewed_certificate(
    database: Database,
    kafka_settings: KafkaSettings,
    certificates: Certificates,
    topic: str,
    start_consumer,
    tmp_path: Path,
) -> None:
    trusted, event = tmp_path / "ca.pem", make_event()
    trusted.write_bytes(certificates.other_ca.read_bytes())
    publish(kafka_settings, topic, [event])
    settings = kafka_settings.model_copy(update={"ssl_ca_file": trusted})

    async def logged() -> bool:
        reasons = [line["reason"] for line in lines if line["event"].startswith("renewed certificates")]
        return any("check KAFKA_SSL_CA_FILE" in reason for reason in reasons)

    with capture_logs() as lines:
        async with start_consumer(record_effect, settings=settings, assigned=False) as consumer:
            await consumer.signals.wait_for(ConsumerSignal.KAFKA_UNAVAILABLE)
            trusted.write_bytes(certificates.server_key.read_bytes())
            await eventually("a line about a file without a certificate", logged)
            trusted.write_bytes(certificates.ca.read_bytes())
            await consumer.signals.wait_for(ConsumerSignal.COMMITTED)
    assert await effects(database) == [event.event_id]
    assert [line["event"] for line in lines if line["log_level"] == "error"] == []
    assert "certificate files renewed; Kafka client replaced" in [line["event"] for line in lines]


async def test_consumer_with_an_unusable_certificate_does_not_start(
    kafka_settings: KafkaSettings, certificates: Certificates, start_consumer
) -> None:
    wrong = kafka_settings.model_copy(update={"ssl_ca_file": certificates.server_key})
    async with start_consumer(record_effect, settings=wrong, assigned=False) as consumer:
        with pytest.raises(KafkaRefused, match="check KAFKA_SSL_CA_FILE"):
            await asyncio.wait_for(consumer.ended(), WAIT_S)
