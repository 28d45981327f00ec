"""Connections by TLS to a server that requires it, and the errors when they fail."""

import errno
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr
from relaybox.db import BACKBONE, Database, DatabaseUnavailable, migrate_up
from relaybox.local import LocalPostgres
from relaybox.settings import PostgresSettings
from relaybox.testing import create_database, drop_database, settings_for
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.certificates import Certificates

_IS_ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


async def encrypted(db: AsyncSession) -> bool:
    return (await db.execute(text(_IS_ENCRYPTED))).scalar_one()


async def is_encrypted(settings: PostgresSettings) -> bool:
    database = Database(settings)
    try:
        return await database.run_in_transaction(encrypted)
    finally:
        await database.close()


async def refusal(settings: PostgresSettings) -> str:
    """Return the error of a pooled connection, which equals that of a connection outside the pool."""
    database = Database(settings)
    try:
        with pytest.raises(DatabaseUnavailable) as pooled:
            await database.run_in_transaction(encrypted)
        with pytest.raises(DatabaseUnavailable) as dedicated:
            await database.dedicated()
    finally:
        await database.close()
    assert str(pooled.value) == str(dedicated.value)
    return str(pooled.value)


@pytest.fixture
async def make_database(tls_postgres: LocalPostgres) -> AsyncIterator[Any]:
    """``await make_database(name, **settings)``: a database on the server that requires TLS."""
    names: list[str] = []

    async def make(name: str = "any", **settings: Any) -> PostgresSettings:
        await create_database(tls_postgres, name)
        names.append(name)
        return settings_for(tls_postgres, name).model_copy(update=settings)

    yield make
    for name in names:
        await drop_database(tls_postgres, name)


async def test_pool_listener_and_migrations_connect_with_verified_tls(
    make_database, certificates: Certificates
) -> None:
    settings = await make_database(ssl_mode="verify-full", ssl_ca_file=certificates.ca)
    assert await migrate_up(settings, BACKBONE)
    assert await is_encrypted(settings)
    database = Database(settings)
    listener: Any = await database.dedicated()
    assert await listener.fetchval(_IS_ENCRYPTED)
    await listener.close()
    await database.close()


async def test_verify_full_checks_each_host_by_its_own_name(
    make_database, certificates: Certificates
) -> None:
    settings = await make_database(ssl_mode="verify-full", ssl_ca_file=certificates.ca)
    # The certificate is only for 127.0.0.1.
    hosts = f"localhost:{settings.port},127.0.0.1:{settings.port}"
    assert await is_encrypted(settings.model_copy(update={"host": hosts}))
    wrong = f"localhost:{settings.port},localhost:{settings.port}"
    told = await refusal(settings.model_copy(update={"host": wrong}))
    assert told.count("the server's certificate is not accepted") == 2


@pytest.mark.parametrize("mode", ["prefer", "require"])
async def test_require_mode_encrypts_without_checking_the_server(make_database, mode: str) -> None:
    assert await is_encrypted(await make_database(ssl_mode=mode))


async def test_error_for_an_unencrypted_connection_names_the_mode(make_database) -> None:
    assert "check POSTGRES_USER, POSTGRES_SSL_MODE" in await refusal(await make_database(ssl_mode="disable"))


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
async def test_certificate_of_another_authority_is_refused(
    make_database, certificates: Certificates, mode: str
) -> None:
    told = await refusal(await make_database(ssl_mode=mode, ssl_ca_file=certificates.other_ca))
    assert "the server's certificate is not accepted: " in told
    assert "check POSTGRES_SSL_CA_FILE" in told


async def test_system_authorities_are_used_without_a_file(make_database) -> None:
    told = await refusal(await make_database(ssl_mode="verify-full"))
    assert "check POSTGRES_SSL_CA_FILE" in told


async def test_only_verify_full_refuses_a_certificate_of_another_name(
    make_database, certificates: Certificates
) -> None:
    settings = await make_database(ssl_mode="verify-full", ssl_ca_file=certificates.ca, host="localhost")
    told = await refusal(settings)
    assert "Hostname mismatch, certificate is not valid for 'localhost'" in told
    assert "check POSTGRES_HOST" in told
    assert await is_encrypted(settings.model_copy(update={"ssl_mode": "verify-ca"}))


async def test_client_sends_its_certificate_on_request(make_database, certificates: Certificates) -> None:
    files = {"ssl_cert_file": certificates.client, "ssl_key_file": certificates.client_key}
    settings = await make_database("certified", ssl_mode="require")
    assert "POSTGRES_SSL_CERT_FILE" in await refusal(settings)
    assert await is_encrypted(settings.model_copy(update=files))


@pytest.mark.parametrize("key", ["server_key", "client_key_encrypted", "ca"])
async def test_error_names_a_key_of_another_certificate(
    make_database, certificates: Certificates, key: str
) -> None:
    files = {"ssl_cert_file": certificates.client, "ssl_key_file": getattr(certificates, key)}
    told = await refusal(await make_database(ssl_mode="require", **files))
    assert told.startswith("POSTGRES_SSL_CERT_FILE with POSTGRES_SSL_KEY_FILE cannot be used: ")


async def test_error_names_an_authority_file_without_certificate(
    make_database, certificates: Certificates
) -> None:
    settings = await make_database(ssl_mode="verify-ca", ssl_ca_file=certificates.client_key)
    assert (await refusal(settings)).startswith("POSTGRES_SSL_CA_FILE cannot be used: ")


async def test_prefer_connects_unencrypted_if_the_server_refuses_tls(make_database) -> None:
    assert not await is_encrypted(await make_database("bare", ssl_mode="prefer"))


async def test_prefer_connects_unencrypted_if_the_server_has_no_tls(
    postgres_settings: PostgresSettings,
) -> None:
    assert postgres_settings.ssl_mode == "prefer"
    assert not await is_encrypted(postgres_settings)


@pytest.mark.parametrize("mode", ["require", "verify-full"])
async def test_server_without_tls_is_rejected_if_tls_is_required(
    postgres_settings: PostgresSettings, mode: str
) -> None:
    told = await refusal(postgres_settings.model_copy(update={"ssl_mode": mode}))
    assert "the server does not support TLS; enable ssl on the server, or check POSTGRES_SSL_MODE" in told


@pytest.mark.parametrize("mode", ["disable", "prefer"])
async def test_no_file_in_the_home_directory_is_read(
    postgres_settings: PostgresSettings, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/closed/.postgresql/postgresql.key")

    # A home directory that this user may not enter; root may enter any directory.
    monkeypatch.setattr("asyncpg.connect_utils._dot_postgresql_path", deny)
    assert not await is_encrypted(postgres_settings.model_copy(update={"ssl_mode": mode}))


async def test_wrong_password_is_not_tried_again_without_tls(
    make_database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(await make_database(password=SecretStr("a-wrong-one")))
    tried: list[bool] = []
    connect = asyncpg.connect

    async def count(**options: Any) -> Any:
        tried.append(bool(options["ssl"]))
        return await connect(**options)

    monkeypatch.setattr("asyncpg.connect", count)
    with pytest.raises(DatabaseUnavailable, match="POSTGRES_PASSWORD"):
        await database.run_in_transaction(encrypted)
    await database.close()
    assert tried == [True]
