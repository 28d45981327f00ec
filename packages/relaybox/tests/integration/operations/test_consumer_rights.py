"""Consumer groups that an account may not read, on a Kafka with TLS and access lists."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from uuid import uuid4

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from pydantic import SecretStr
from relaybox.local import LocalKafka
from relaybox.operations import GroupUnreadable, KafkaUnavailable, consumer_lag
from relaybox.settings import KafkaSettings

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.clusters import admin_client
from tests.fixtures.groups import commit_offsets, group_member, produce_aged
from tests.fixtures.tls_servers import USERNAME

Denied = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def kafka_settings(scram_settings: KafkaSettings) -> KafkaSettings:
    """Return the settings of an account; topics are created with them too."""
    return scram_settings


@pytest.fixture
def group() -> str:
    return f"group-{uuid4().hex[:8]}"


@pytest.fixture
def denied(secured_kafka: LocalKafka) -> Denied:
    """``with denied(resource, name, operation):`` the account lacks this right in the block."""

    @contextmanager
    def deny(resource: ResourceType, name: str, operation: AclOperation) -> Generator[None]:
        binding = (
            *(resource, name, ResourcePatternType.LITERAL, f"User:{USERNAME}", "*", operation),
            AclPermissionType.DENY,
        )
        others = (
            *(resource, name, ResourcePatternType.LITERAL, "User:*", "*", AclOperation.ALL),
            AclPermissionType.ALLOW,
        )
        with admin_client(KafkaSettings(host=secured_kafka.host, port=secured_kafka.port)) as admin:
            for created in admin.create_acls([AclBinding(*binding), AclBinding(*others)]).values():
                created.result(WAIT_S)
            try:
                yield
            finally:
                for removed in admin.delete_acls(
                    [AclBindingFilter(*binding), AclBindingFilter(*others)]
                ).values():
                    removed.result(WAIT_S)

    return deny


async def test_group_without_the_right_to_describe_is_refused(
    kafka_settings: KafkaSettings, topic: str, group: str, denied: Denied
) -> None:
    commit_offsets(kafka_settings, group, topic, {0: 0})
    assert (await consumer_lag(kafka_settings, group)).group == group
    with (
        denied(ResourceType.GROUP, group, AclOperation.DESCRIBE),
        pytest.raises(GroupUnreadable, match=f"consumer group '{group}' .*grant the right DESCRIBE"),
    ):
        await consumer_lag(kafka_settings, group)


async def test_lag_without_the_right_to_read_has_no_age(
    kafka_settings: KafkaSettings, topic: str, group: str, denied: Denied
) -> None:
    produce_aged(kafka_settings, topic, 0, [60, 30])
    commit_offsets(kafka_settings, group, topic, {0: 0})
    with denied(ResourceType.TOPIC, topic, AclOperation.READ):
        found = await consumer_lag(kafka_settings, group)
    assert (found.messages, found.seconds, found.partitions[0].seconds) == (2, None, None)
    assert "authorization failed" in (found.ages_missing or "")


async def test_topic_without_the_right_to_describe_is_named(
    kafka_settings: KafkaSettings, topic: str, group: str, denied: Denied
) -> None:
    # Not a consumer of the library, which ends when it loses its rights.
    with (
        await asyncio.to_thread(group_member, kafka_settings, topic, group),
        denied(ResourceType.TOPIC, topic, AclOperation.DESCRIBE),
    ):
        found = await consumer_lag(kafka_settings, group)
    assert (found.partitions, found.topics_missing) == ([], [topic])


async def test_wrong_password_names_the_setting_and_keeps_the_secret(
    kafka_settings: KafkaSettings, group: str
) -> None:
    wrong = kafka_settings.model_copy(update={"sasl_password": SecretStr("a-password-that-must-not-leak")})
    with pytest.raises(KafkaUnavailable, match="KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD") as refused:
        await consumer_lag(wrong, group)
    assert "a-password-that-must-not-leak" not in str(refused.value)
