"""Settings that protect connections: one line for each missing or contradictory combination."""

from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_settings import BaseSettings
from relaybox.errors import SettingsError
from relaybox.settings import KafkaSettings, PostgresSettings, load_settings

_PASSWORD = "a-password-that-must-not-leak"


@pytest.fixture
def pem(tmp_path: Path) -> str:
    file = tmp_path / "any.pem"
    file.write_text("whatever")
    return str(file)


def refusal(kind: type[BaseSettings]) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        load_settings(kind)
    return str(refused.value).splitlines()


def test_unprotected_broker_requires_only_its_address() -> None:
    assert KafkaSettings().client_config() == {
        "bootstrap.servers": "localhost:9092",
        "security.protocol": "PLAINTEXT",
    }


@pytest.mark.parametrize(
    ("host", "servers"),
    [
        ("a", "a:9092"),
        ("a,b", "a:9092,b:9092"),
        (" a:9093 , b,", "a:9093,b:9092"),
        ("10.0.0.1:1,[::1]:2,[::1]", "10.0.0.1:1,[::1]:2,[::1]:9092"),
    ],
)
def test_several_brokers_may_have_their_own_ports(host: str, servers: str) -> None:
    assert KafkaSettings(host=host).client_config()["bootstrap.servers"] == servers


def test_client_gets_the_settings_under_the_names_of_librdkafka(pem: str) -> None:
    settings = KafkaSettings(
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="relay",
        sasl_password=SecretStr(_PASSWORD),
        ssl_ca_file=Path(pem),
        ssl_cert_file=Path(pem),
        ssl_key_file=Path(pem),
        ssl_key_password=SecretStr("opens the key"),
    )
    assert settings.client_config() == {
        "bootstrap.servers": "localhost:9092",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "relay",
        "sasl.password": _PASSWORD,
        "ssl.ca.location": pem,
        "ssl.certificate.location": pem,
        "ssl.key.location": pem,
        "ssl.key.password": "opens the key",
    }
    assert _PASSWORD not in repr(settings)
    assert "opens the key" not in str(settings)


def test_sasl_requires_mechanism_user_and_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    assert refusal(KafkaSettings) == [
        "KAFKA_SASL_MECHANISM: is missing: required if KAFKA_SECURITY_PROTOCOL is SASL_SSL",
        "KAFKA_SASL_USERNAME: is missing: required if KAFKA_SECURITY_PROTOCOL is SASL_SSL",
        "KAFKA_SASL_PASSWORD: is missing: required if KAFKA_SECURITY_PROTOCOL is SASL_SSL",
    ]


def test_unknown_protocol_is_one_error_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "TLS")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", _PASSWORD)
    (line,) = refusal(KafkaSettings)
    assert line.startswith("KAFKA_SECURITY_PROTOCOL: Input should be 'PLAINTEXT', 'SSL'")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("KAFKA_SASL_USERNAME", "set KAFKA_SECURITY_PROTOCOL to SASL_SSL or SASL_PLAINTEXT"),
        ("KAFKA_SASL_PASSWORD", "set KAFKA_SECURITY_PROTOCOL to SASL_SSL or SASL_PLAINTEXT"),
        ("KAFKA_SSL_CA_FILE", "set KAFKA_SECURITY_PROTOCOL to SASL_SSL or SSL"),
        ("KAFKA_SSL_KEY_FILE", "set KAFKA_SSL_CERT_FILE"),
        ("KAFKA_SSL_KEY_PASSWORD", "set KAFKA_SSL_KEY_FILE"),
        ("POSTGRES_SSL_CA_FILE", "set POSTGRES_SSL_MODE to verify-full or verify-ca"),
        ("POSTGRES_SSL_KEY_FILE", "set POSTGRES_SSL_CERT_FILE"),
    ],
)
def test_unused_credentials_are_refused(
    name: str, remedy: str, pem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, pem)
    kind = KafkaSettings if name.startswith("KAFKA") else PostgresSettings
    assert refusal(kind) == [f"{name}: has no effect with the other settings; remove it, or {remedy}"]


def test_certificate_without_encryption_is_refused(pem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_SSL_MODE", "disable")
    monkeypatch.setenv("POSTGRES_SSL_CERT_FILE", pem)
    monkeypatch.setenv("POSTGRES_SSL_KEY_FILE", pem)
    (line,) = refusal(PostgresSettings)
    assert line.startswith(
        "POSTGRES_SSL_CERT_FILE: has no effect with the other settings; remove it, or set POSTGRES_SSL_MODE"
    )


@pytest.mark.parametrize(
    ("kind", "on"),
    [
        (KafkaSettings, ("KAFKA_SECURITY_PROTOCOL", "SSL")),
        (PostgresSettings, ("POSTGRES_SSL_MODE", "require")),
    ],
)
def test_certificate_requires_its_key(
    kind: type[BaseSettings], on: tuple[str, str], pem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = on[0].partition("_")[0]
    monkeypatch.setenv(*on)
    monkeypatch.setenv(f"{prefix}_SSL_CERT_FILE", pem)
    assert refusal(kind) == [f"{prefix}_SSL_KEY_FILE: is missing: required if {prefix}_SSL_CERT_FILE is set"]


@pytest.mark.parametrize(
    ("kind", "on", "name"),
    [
        (KafkaSettings, ("KAFKA_SECURITY_PROTOCOL", "SSL"), "KAFKA_SSL_CA_FILE"),
        (KafkaSettings, ("KAFKA_SECURITY_PROTOCOL", "SSL"), "KAFKA_SSL_CERT_FILE"),
        (PostgresSettings, ("POSTGRES_SSL_MODE", "verify-full"), "POSTGRES_SSL_CA_FILE"),
    ],
)
def test_unreadable_file_is_refused_at_the_start(
    kind: type[BaseSettings],
    on: tuple[str, str],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(*on)
    monkeypatch.setenv(name, str(tmp_path / "nowhere.pem"))
    assert refusal(kind) == [
        f"{name}: the file cannot be read: No such file or directory; check its path and its permissions"
    ]
    monkeypatch.setenv(name, str(tmp_path))
    assert refusal(kind) == [
        f"{name}: the file cannot be read: Is a directory; check its path and its permissions"
    ]


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("a", [("a", 5432)]),
        (" a:5433 , b,", [("a", 5433), ("b", 5432)]),
        ("[::1]:1,[::1],::1", [("::1", 1), ("::1", 5432), ("::1", 5432)]),
        ("/var/run/postgresql", [("/var/run/postgresql", 5432)]),
    ],
)
def test_several_postgresql_hosts_may_have_ports(host: str, addresses: list[tuple[str, int]]) -> None:
    assert PostgresSettings(host=host).addresses == addresses


@pytest.mark.parametrize("host", [",", "a:0", "a,b:65536"])
def test_host_without_a_name_or_port_is_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_HOST", host)
    (line,) = refusal(PostgresSettings)
    assert line.startswith("POSTGRES_HOST: must be a comma-separated list of host names")


def test_transaction_pooler_needs_a_direct_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_POOLER", "transaction")
    (line,) = refusal(PostgresSettings)
    assert line.startswith("POSTGRES_DIRECT_HOST: is missing: required if POSTGRES_POOLER is transaction")


def test_direct_address_without_a_pooler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_DIRECT_HOST", "db")
    assert refusal(PostgresSettings) == [
        "POSTGRES_DIRECT_HOST: has no effect with the other settings; remove it, or set "
        "POSTGRES_POOLER to session or transaction"
    ]


def test_direct_settings_bypass_the_pooler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_POOLER", "session")
    assert load_settings(PostgresSettings).direct().address == "localhost:5432"
    monkeypatch.setenv("POSTGRES_DIRECT_HOST", "db")
    monkeypatch.setenv("POSTGRES_DIRECT_PORT", "5433")
    direct = load_settings(PostgresSettings).direct()
    assert (direct.address, direct.pooler, direct.direct()) == ("db:5433", "none", direct)


def test_changed_and_missing_certificate_files_are_noticed(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.touch()
    settings = KafkaSettings.model_validate({"security_protocol": "SSL", "ssl_ca_file": file})
    before = settings.file_stamps()
    file.chmod(0o400)
    changed = settings.file_stamps()
    assert changed != before
    file.unlink()
    assert settings.file_stamps() == [None]
