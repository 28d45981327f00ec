"""Settings of the PostgreSQL connection: ``POSTGRES_*``."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from relaybox.settings._values import (
    Port,
    ReadableFile,
    invalid_setting,
    parse_addresses,
    refuse_unused,
    require_key_file,
    validate_addresses,
)

__all__ = ("PostgresSettings",)


def _plain_schema(name: str) -> str:
    if not _SCHEMA.fullmatch(name) or name == "information_schema":
        raise invalid_setting(
            "must be a plain name: a-z, 0-9 and _, at most 63 characters, "
            "beginning with neither a digit nor pg_, and not information_schema"
        )
    return name


#: A plain name means the same with and without quotes in SQL.
_SCHEMA: Final = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")


class PostgresSettings(BaseSettings):
    """The address of PostgreSQL, and the roles of services and migrations.

    Services connect as ``user``, which owns no table, so that the database can refuse what services must
    never do (G07). Migrations connect as ``owner_user``; if it is left out, both use the same role and only a
    trigger enforces the append-only rule.
    """

    model_config = SettingsConfigDict(
        env_prefix="POSTGRES_", frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    #: One or more servers, comma-separated; each may have its own port (``name:5433``).
    host: Annotated[str, AfterValidator(validate_addresses)] = "localhost"
    port: Port = 5432
    #: Which server is used: ``read-write``: it accepts writes; ``primary``: it is not a standby.
    target_session_attrs: Literal["any", "primary", "read-write"] = "read-write"
    #: The pooler at ``host``: ``none``, or the pool_mode of PgBouncer, ``session`` or ``transaction``.
    pooler: Literal["none", "session", "transaction"] = "none"
    #: The servers behind the pooler, as ``host``: for LISTEN, relays and migrations.
    direct_host: Annotated[str, AfterValidator(validate_addresses)] | None = None
    direct_port: Port = 5432
    db: str = "relaybox"
    #: Schema of all tables, types and functions of the library and its applications: the search_path of each
    #: connection. The alias avoids a field ``schema``, which would hide a method of Pydantic.
    schema_name: Annotated[str, AfterValidator(_plain_schema)] = Field(
        default="public", validation_alias="POSTGRES_SCHEMA"
    )
    user: str = "relaybox"
    password: SecretStr = SecretStr("")
    owner_user: str | None = None
    owner_password: SecretStr | None = None
    #: Maximum number of connections of a process.
    pool_size: Annotated[int, Field(ge=1, le=200)] = 10
    #: A statement that waits longer for a row lock fails; the API responds with 503.
    lock_timeout_ms: Annotated[int, Field(ge=1, le=600_000)] = 3_000
    #: The server cancels a statement that runs longer.
    statement_timeout_ms: Annotated[int, Field(ge=1, le=3_600_000)] = 15_000
    #: The server rolls back a transaction that is idle for longer, which releases its locks (G69).
    idle_in_transaction_timeout_ms: Annotated[int, Field(ge=100, le=3_600_000)] = 30_000
    #: Seconds to wait for a new connection before the server counts as unavailable.
    connect_timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    #: As libpq's sslmode: ``prefer`` encrypts if the server supports it; only ``verify-…`` checks the server.
    ssl_mode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    #: Certificates of the authorities that sign the server's certificate; None: those of the system.
    ssl_ca_file: ReadableFile | None = None
    #: The client's certificate, for servers that require one.
    ssl_cert_file: ReadableFile | None = None
    #: The certificate's private key, not encrypted.
    ssl_key_file: ReadableFile | None = None

    @field_validator("direct_host")
    @classmethod
    def _direct_host_needs_a_pooler(cls, value: str | None, info: ValidationInfo) -> str | None:
        pooler = info.data.get("pooler")
        if pooler == "none":
            refuse_unused(value, "set POSTGRES_POOLER to session or transaction")
        elif pooler == "transaction" and value is None:
            raise invalid_setting(
                "needed with POSTGRES_POOLER=transaction: LISTEN, relays and migrations need a session each"
            )
        return value

    @field_validator("ssl_ca_file")
    @classmethod
    def _ca_file_needs_verification(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if info.data.get("ssl_mode") in ("disable", "prefer", "require"):
            refuse_unused(value, "set POSTGRES_SSL_MODE to verify-full or verify-ca")
        return value

    @field_validator("ssl_cert_file")
    @classmethod
    def _certificate_needs_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if info.data.get("ssl_mode") == "disable":
            refuse_unused(value, "set POSTGRES_SSL_MODE to verify-full, verify-ca or require")
        return value

    @field_validator("ssl_key_file")
    @classmethod
    def _key_needs_its_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return require_key_file(value, info, "POSTGRES_SSL_CERT_FILE")

    def as_owner(self) -> "PostgresSettings":
        """Return settings for the same database with the tables' owner as user."""
        if self.owner_user is None:
            return self
        password = self.password if self.owner_password is None else self.owner_password
        return self.model_copy(update={"user": self.owner_user, "password": password})

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each server, in the given order."""
        return parse_addresses(self.host, self.port)

    @property
    def address(self) -> str:
        """Each server as ``host:port``, comma-separated, for messages."""
        return ", ".join(f"{host}:{port}" for host, port in self.addresses)

    def direct(self) -> "PostgresSettings":
        """Return settings that bypass the pooler; the same ones if ``POSTGRES_DIRECT_HOST`` is not set."""
        if self.direct_host is None:
            return self
        changes = {"host": self.direct_host, "port": self.direct_port, "pooler": "none", "direct_host": None}
        return self.model_copy(update=changes)
