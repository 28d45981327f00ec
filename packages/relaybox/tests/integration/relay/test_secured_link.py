"""A relay and a broker with TLS: errors name the setting to check if the broker rejects the relay."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from relaybox.db import Database
from relaybox.relay import Relay, RelaySignal
from relaybox.service import check_kafka
from relaybox.settings import KafkaSettings, RelaySettings
from relaybox.telemetry import HealthState
from relaybox.topics import TopicsNotReady, ensure_topics
from structlog.testing import capture_logs

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.certificates import KEY_PASSWORD, Certificates
from tests.fixtures.relays import put_events, rows_of, running, wait_until_all_sent
from tests.fixtures.signal_recorder import SignalRecorder
from tests.fixtures.waiting import eventually

_NO_POLL = RelaySettings(poll_interval=3_600)
_WRONG_PASSWORD = "a-password-that-must-not-leak"
#: Wrong settings for SCRAM over TLS, each with the setting that the error must name.
_WRONG_SCRAM = {
    "password": ({"sasl_password": SecretStr(_WRONG_PASSWORD)}, "KAFKA_SASL_PASSWORD"),
    "user": ({"sasl_username": "unknown-user"}, "KAFKA_SASL_USERNAME"),
    "mechanism": ({"sasl_mechanism": "PLAIN"}, "KAFKA_SASL_MECHANISM"),
    "authority": ({"ssl_ca_file": "other_ca"}, "KAFKA_SSL_CA_FILE"),
    "no authority": ({"ssl_ca_file": "server_key"}, "KAFKA_SSL_CA_FILE"),
    "name": ({"host": "localhost"}, "KAFKA_HOST"),
    "protocol": ({"security_protocol": "PLAINTEXT"}, "KAFKA_SECURITY_PROTOCOL"),
}
_WRONG_CERTIFICATE = {
    "no certificate": ({"ssl_cert_file": None, "ssl_key_file": None}, "KAFKA_SSL_CERT_FILE"),
    "another's key": ({"ssl_key_file": "server_key"}, "KAFKA_SSL_KEY_FILE"),
}


def changed(settings: KafkaSettings, change: dict[str, Any], certificates: Certificates) -> KafkaSettings:
    """Return *settings* with *change*; file names refer to *certificates*."""
    files = {
        name: getattr(certificates, value)
        for name, value in change.items()
        if name.endswith("_file") and value is not None
    }
    return settings.model_copy(update={**change, **files})


@pytest.fixture(params=["scram_settings", "certificate_settings"])
def kafka_settings(request: pytest.FixtureRequest) -> KafkaSettings:
    """Return the settings of both protected listeners; topics are created with them too."""
    return request.getfixturevalue(request.param)


async def test_relay_publishes_over_a_protected_connection(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    await put_events(database, topic, ["a", "b"], count=3)
    async with running(Relay(database, kafka_settings, _NO_POLL)):
        await wait_until_all_sent(database)
    assert [row["status"] for row in await rows_of(database)] == ["SENT"] * 6
    assert await ensure_topics(kafka_settings, [topic]) == []
    assert (await check_kafka(kafka_settings)()).state is HealthState.OK


async def test_key_of_a_client_certificate_may_be_encrypted(
    certificate_settings: KafkaSettings, certificates: Certificates
) -> None:
    encrypted = {"ssl_key_file": certificates.client_key_encrypted}
    right = {**encrypted, "ssl_key_password": SecretStr(KEY_PASSWORD)}
    assert (await check_kafka(certificate_settings.model_copy(update=right))()).state is HealthState.OK
    wrong = {**encrypted, "ssl_key_password": SecretStr(_WRONG_PASSWORD)}
    refused = await check_kafka(certificate_settings.model_copy(update=wrong))()
    assert refused.state is HealthState.FAILED
    assert "check KAFKA_SSL_KEY_FILE and KAFKA_SSL_KEY_PASSWORD" in str(refused.detail)
    assert _WRONG_PASSWORD not in str(refused.detail)


async def advised(settings: KafkaSettings, hint: str) -> None:
    """Return when the health check names *hint*; before the broker responds it cannot know the reason."""
    check = check_kafka(settings)
    async with asyncio.timeout(WAIT_S):
        while True:
            answer = await check()
            assert answer.state is HealthState.FAILED
            if hint in str(answer.detail).rpartition("; check ")[2]:
                return


async def test_health_check_uses_a_renewed_certificate(
    scram_settings: KafkaSettings, certificates: Certificates, tmp_path: Path
) -> None:
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(certificates.other_ca.read_bytes())
    check = check_kafka(scram_settings.model_copy(update={"ssl_ca_file": trusted}))

    async def is_ok() -> bool:
        return (await check()).state is HealthState.OK

    assert not await is_ok()
    trusted.write_bytes(certificates.ca.read_bytes())
    await eventually("the check succeeds", is_ok)


@pytest.mark.parametrize(("change", "hint"), _WRONG_SCRAM.values(), ids=_WRONG_SCRAM)
async def test_wrong_scram_setting_is_named(
    scram_settings: KafkaSettings, certificates: Certificates, change: dict[str, Any], hint: str
) -> None:
    await advised(changed(scram_settings, change, certificates), hint)


@pytest.mark.parametrize(("change", "hint"), _WRONG_CERTIFICATE.values(), ids=_WRONG_CERTIFICATE)
async def test_wrong_certificate_setting_is_named(
    certificate_settings: KafkaSettings, certificates: Certificates, change: dict[str, Any], hint: str
) -> None:
    await advised(changed(certificate_settings, change, certificates), hint)


async def test_topic_creation_with_wrong_password_names_the_settings(
    scram_settings: KafkaSettings,
) -> None:
    wrong = scram_settings.model_copy(update={"sasl_password": SecretStr(_WRONG_PASSWORD)})
    with pytest.raises(TopicsNotReady, match="check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD") as refused:
        await ensure_topics(wrong, ["any"])
    assert _WRONG_PASSWORD not in str(refused.value)


@pytest.mark.guarantee("G25")
@pytest.mark.parametrize("what", ["password", "authority", "no authority"])
async def test_relay_rejected_by_the_broker_counts_no_attempts_and_logs_why(
    database: Database, scram_settings: KafkaSettings, certificates: Certificates, what: str
) -> None:
    change, hint = _WRONG_SCRAM[what]
    await put_events(database, "domain-events", ["a"], count=3)
    signals = SignalRecorder()
    relay = Relay(database, changed(scram_settings, change, certificates), _NO_POLL, on_signal=signals)
    with capture_logs() as lines:
        async with running(relay):
            await signals.wait_for(RelaySignal.LINK_DOWN)
            assert "link down" in repr(relay)
    [told] = [line for line in lines if line["log_level"] == "warning"]
    assert hint in told["reason"].rpartition("; check ")[2]
    assert _WRONG_PASSWORD not in str(lines)
    rows = await rows_of(database)
    assert {(row["status"], row["attempts"]) for row in rows} == {("PENDING", 0)}


@pytest.mark.guarantee("G25")
async def test_rows_are_published_after_a_certificate_is_renewed(
    database: Database, scram_settings: KafkaSettings, certificates: Certificates, make_topic, tmp_path: Path
) -> None:
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(certificates.other_ca.read_bytes())
    await put_events(database, make_topic(), ["a"], count=3)
    signals = SignalRecorder()
    settings = scram_settings.model_copy(update={"ssl_ca_file": trusted})
    async with running(Relay(database, settings, _NO_POLL, on_signal=signals)):
        await signals.wait_for(RelaySignal.LINK_DOWN)
        trusted.write_bytes(certificates.ca.read_bytes())
        await wait_until_all_sent(database)
