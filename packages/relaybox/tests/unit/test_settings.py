"""Settings: read from the environment, one line for each invalid one, never with its value."""

import re

import pytest
from pydantic_settings import BaseSettings
from relaybox.errors import SettingsError
from relaybox.outbox import OutboxSettings
from relaybox.settings import (
    JwtSettings,
    KafkaSettings,
    PostgresSettings,
    RelaySettings,
    TaskSettings,
    load_settings,
)

_NO_SECRET = "a-value-that-must-not-be-printed"


def test_defaults_are_those_of_the_contract() -> None:
    postgres, kafka, relay = (
        load_settings(kind) for kind in (PostgresSettings, KafkaSettings, RelaySettings)
    )
    assert (postgres.host, postgres.port, postgres.db) == ("localhost", 5432, "relaybox")
    assert kafka.bootstrap_servers == "localhost:9092"
    assert (relay.poll_interval, relay.batch_size) == (5.0, 100)


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_HOST", "db.example")
    monkeypatch.setenv("POSTGRES_PORT", "6543")
    monkeypatch.setenv("RELAY_BATCH_SIZE", "7")
    assert load_settings(PostgresSettings).host == "db.example"
    assert load_settings(PostgresSettings).port == 6543
    assert load_settings(RelaySettings).batch_size == 7


@pytest.mark.parametrize(
    "kind", [PostgresSettings, KafkaSettings, RelaySettings, TaskSettings, OutboxSettings]
)
def test_empty_value_means_not_set(kind: type[BaseSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in kind.model_fields:
        monkeypatch.setenv(f"{kind.model_config.get('env_prefix')}{name}".upper(), "")
    assert load_settings(kind) == kind.model_construct()


@pytest.mark.parametrize("name", ["relaybox", "_1", "user", "a" * 63])
def test_plain_name_is_a_valid_schema(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_SCHEMA", name)
    assert load_settings(PostgresSettings).schema_name == name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Shop",
            '"shop"',
            "sh'op",
            "shop, public",
            "$user",
            "my shop",
            "1st",
            "schön",
            "a" * 64,
            "shop\n",
            " ",
        ),
        *("pg_shop", "pg_catalog", "information_schema"),
    ],
)
def test_schema_that_is_no_plain_name_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_SCHEMA", name)
    with pytest.raises(
        SettingsError, match=r"^POSTGRES_SCHEMA: must be a plain name: a-z, 0-9 and _"
    ) as refused:
        load_settings(PostgresSettings)
    assert len(str(refused.value).splitlines()) == 1


def test_empty_secret_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "")
    with pytest.raises(SettingsError, match=r"^JWT_SECRET: Field required$"):
        load_settings(JwtSettings)


def test_every_invalid_setting_has_one_line_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POSTGRES_PORT", "POSTGRES_POOL_SIZE", "POSTGRES_LOCK_TIMEOUT_MS"):
        monkeypatch.setenv(name, _NO_SECRET)
    with pytest.raises(SettingsError) as refused:
        load_settings(PostgresSettings)
    lines = str(refused.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "POSTGRES_PORT",
        "POSTGRES_POOL_SIZE",
        "POSTGRES_LOCK_TIMEOUT_MS",
    ]
    assert all(re.fullmatch(r"[A-Z_]+: Input should be .+", line) for line in lines)
    assert _NO_SECRET not in str(refused.value)


def test_missing_setting_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^JWT_SECRET: Field required$"):
        load_settings(JwtSettings)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (JwtSettings, "JWT_SECRET", "too-short-to-sign-with"),
        (PostgresSettings, "POSTGRES_PORT", "65536"),
        (KafkaSettings, "KAFKA_PORT", "0"),
        (RelaySettings, "RELAY_POLL_INTERVAL", "-1"),
        (RelaySettings, "RELAY_DELIVERY", "maybe-once"),
        (RelaySettings, "RELAY_TOPIC_REPLICATION", "0"),
        (OutboxSettings, "OUTBOX_MESSAGE_BYTES_MAX", "12"),
    ],
)
def test_value_out_of_bounds_is_refused_and_not_shown(
    kind, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load_settings(kind)
    assert str(refused.value).startswith(f"{name}: ")
    assert f"'{value}'" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_min_isr_above_the_replication_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_TOPIC_REPLICATION", "2")
    monkeypatch.setenv("RELAY_TOPIC_MIN_ISR", "3")
    with pytest.raises(
        SettingsError, match=r"^RELAY_TOPIC_MIN_ISR: must be at most RELAY_TOPIC_REPLICATION, 2"
    ):
        load_settings(RelaySettings)


def test_repr_contains_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", _NO_SECRET)
    monkeypatch.setenv("JWT_SECRET", _NO_SECRET * 2)
    assert _NO_SECRET not in repr(load_settings(PostgresSettings))
    assert _NO_SECRET not in repr(load_settings(JwtSettings))


def test_owner_is_the_services_role_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    one_role = load_settings(PostgresSettings)
    assert one_role.as_owner() is one_role

    monkeypatch.setenv("POSTGRES_OWNER_USER", "landlord")
    monkeypatch.setenv("POSTGRES_PASSWORD", "tenant-password")
    owner = load_settings(PostgresSettings).as_owner()
    assert (owner.user, owner.password.get_secret_value()) == ("landlord", "tenant-password")

    monkeypatch.setenv("POSTGRES_OWNER_PASSWORD", "landlord-password")
    assert load_settings(PostgresSettings).as_owner().password.get_secret_value() == "landlord-password"


@pytest.mark.parametrize(
    ("topics", "routes", "name", "why"),
    [
        (
            "one",
            "Genesis=two",
            "OUTBOX_ROUTES",
            r"topic 'two' of Genesis is not declared; add it to OUTBOX_TOPICS \(one\)",
        ),
        ("one", "Genesis", "OUTBOX_ROUTES", "'Genesis' is not a route; write Domain=topic"),
        ("one", "Genesis=", "OUTBOX_ROUTES", "'Genesis=' is not a route"),
        ("one", "Genesis=one,", "OUTBOX_ROUTES", "'' is not a route"),
        ("one", "Genesis.Session=one", "OUTBOX_ROUTES", "the domain without a dot"),
        ("one", "Genesis=one,Genesis=one", "OUTBOX_ROUTES", "Genesis has two routes"),
        ("one,,two", "", "OUTBOX_TOPICS", "'' is not a topic name"),
        ("one two", "", "OUTBOX_TOPICS", "'one two' is not a topic name"),
        ("..", "", "OUTBOX_TOPICS", "is not a topic name"),
    ],
)
def test_invalid_route_or_topic_is_refused_in_one_line(
    topics: str, routes: str, name: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOX_TOPICS", topics)
    monkeypatch.setenv("OUTBOX_ROUTES", routes)
    with pytest.raises(SettingsError, match=f"^{name}: .*{why}") as refused:
        load_settings(OutboxSettings)
    assert len(str(refused.value).splitlines()) == 1
