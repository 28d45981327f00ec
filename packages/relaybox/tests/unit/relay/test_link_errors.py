"""The error of the relay names what to check after an error of librdkafka: not always the address."""

from uuid import UUID

import pytest
from confluent_kafka import KafkaError, KafkaException
from relaybox.relay._errors import LinkDown
from relaybox.relay._kafka import map_link_errors
from relaybox.relay._transaction import Markers


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (KafkaError._TRANSPORT, "got no response .*; check KAFKA_HOST, KAFKA_PORT"),
        (KafkaError._TIMED_OUT, "got no response .*; check KAFKA_HOST, KAFKA_PORT"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "cannot use Kafka .*; check the brokers, the permissions"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, "cannot use Kafka .*; check the brokers, the permissions"),
    ],
)
def test_link_error_names_the_address_only_if_no_broker_responded(code: int, text: str) -> None:
    with pytest.raises(LinkDown, match=text), map_link_errors():
        raise KafkaException(KafkaError(code))


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (
            {"sasl.mechanism": "FOO"},
            "SASL mechanism: FOO.*; check the brokers, .* KAFKA_ settings",
        ),
        ({"security.protocol": "ssl", "ssl.ca.location": "/missing.pem"}, "; check KAFKA_SSL_CA_FILE"),
    ],
)
def test_invalid_client_setting_is_no_unreachable_broker(setting: dict[str, str], text: str) -> None:
    connection = {"bootstrap.servers": "localhost:1", "security.protocol": "sasl_ssl", **setting}
    with pytest.raises(LinkDown, match=f"cannot use Kafka .*{text}"):
        Markers(connection, UUID(int=0)).ensure_partitions([0])
