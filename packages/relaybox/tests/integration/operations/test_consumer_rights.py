"""Consumer groups that an account may not read, on a Kafka with TLS and access lists."""

import asyncio
import json
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
from relaybox.cli import app
from relaybox.db import Database
from relaybox.local import LocalKafka
from relaybox.operations import (
    GroupState,
    GroupUnreadable,
    KafkaUnavailable,
    consumer_lag,
    list_consumers,
)
from relaybox.settings import KafkaSettings, PostgresSettings
from typer.testing import CliRunner

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.clusters import admin_client
from tests.fixtures.groups import commit_offsets, group_member, produce_aged
from tests.fixtures.letters import park_letters
from tests.fixtures.processes import command_environment
from tests.fixtures.tls_servers import PASSWORD, USERNAME

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


async def test_list_of_groups_shows_those_that_are_readable(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, denied: Denied
) -> None:
    other = f"other-{group}"
    for each in (group, other):
        commit_offsets(kafka_settings, each, topic, {0: 0})
        await park_letters(database, "a", group=each)
    async with database.connection() as connection:
        with denied(ResourceType.GROUP, group, AclOperation.DESCRIBE):
            found = {each.group: each for each in await list_consumers(connection, kafka_settings)}
    assert (found[other].state, found[other].partitions) == (GroupState.EMPTY, 4)
    refused = found[group]
    assert (refused.state, refused.lag_messages, refused.letters) == (GroupState.UNREADABLE, None, 1)
    [fault] = refused.faults
    assert fault.code == "GROUP_UNREADABLE"
    assert fault.remedy.startswith("grant the right DESCRIBE on the group")


async def test_status_command_fails_if_a_group_is_unreadable(
    database: Database,
    postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    group: str,
    denied: Denied,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for each in (group, f"other-{group}"):
        await park_letters(database, "a", group=each)
    secrets = {
        "KAFKA_SECURITY_PROTOCOL": kafka_settings.security_protocol,
        "KAFKA_SASL_MECHANISM": kafka_settings.sasl_mechanism,
        "KAFKA_SASL_USERNAME": USERNAME,
        "KAFKA_SASL_PASSWORD": PASSWORD,
        "KAFKA_SSL_CA_FILE": str(kafka_settings.ssl_ca_file),
    }
    variables = command_environment(postgres_settings, kafka_settings) | secrets
    with denied(ResourceType.GROUP, group, AclOperation.DESCRIBE):
        printed, parsed = [
            await asyncio.to_thread(CliRunner().invoke, app, ["consumer", "status", *more], env=variables)
            for more in ((), ("--json",))
        ]
    for result in (printed, parsed):
        assert result.exit_code == 1
        [line] = result.stderr.splitlines()
        assert line.startswith(f"error: consumer group '{group}' cannot be read")
    assert f"other-{group}" in printed.stdout
    states = {each["group"]: each["state"] for each in json.loads(parsed.stdout)}
    assert states == {group: "UNREADABLE", f"other-{group}": "ABSENT"}


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
