"""Where PostgreSQL is: ``POSTGRES_*``."""

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


#: Plain, so that the name is the same with and without quotes, wherever PostgreSQL reads it.
_SCHEMA: Final = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")


class PostgresSettings(BaseSettings):
    """Where PostgreSQL is, and as whom services and migrations connect.

    Services connect as ``user``, which owns no table, so that the database itself can refuse
    what the application must never do (G07). Migrations connect as ``owner_user``; left out,
    both are the same role and the append-only rule rests on a trigger alone.
    """

    model_config = SettingsConfigDict(
        env_prefix="POSTGRES_", frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    #: One server or several, comma-separated; each may have a port of its own (``name:5433``).
    host: Annotated[str, AfterValidator(validate_addresses)] = "localhost"
    port: Port = 5432
    #: Which of the servers is used: ``read-write`` one that takes writes, ``primary`` one that is no standby.
    target_session_attrs: Literal["any", "primary", "read-write"] = "read-write"
    #: The pooler at ``host``: ``none``, or one that lends a server connection for a ``session`` or for each
    #: ``transaction`` (pool_mode of PgBouncer).
    pooler: Literal["none", "session", "transaction"] = "none"
    #: The server past the pooler, as ``host``: for LISTEN, the relay and migrations.
    direct_host: Annotated[str, AfterValidator(validate_addresses)] | None = None
    direct_port: Port = 5432
    db: str = "relaybox"
    #: Schema of all tables, types and functions of the library and its applications: the search_path of every
    #: connection. Alias: a field ``schema`` would hide a method of Pydantic's.
    schema_name: Annotated[str, AfterValidator(_plain_schema)] = Field(
        default="public", validation_alias="POSTGRES_SCHEMA"
    )
    user: str = "relaybox"
    password: SecretStr = SecretStr("")
    owner_user: str | None = None
    owner_password: SecretStr | None = None
    #: Connections a process keeps at the most.
    pool_size: Annotated[int, Field(ge=1, le=200)] = 10
    #: A statement that waits longer for a row lock fails; the API answers 503.
    lock_timeout_ms: Annotated[int, Field(ge=1, le=600_000)] = 3_000
    #: A statement that runs longer is cancelled by the server.
    statement_timeout_ms: Annotated[int, Field(ge=1, le=3_600_000)] = 15_000
    #: A transaction whose client falls silent for longer is taken back, and with it every lock it held (G69).
    idle_in_transaction_timeout_ms: Annotated[int, Field(ge=100, le=3_600_000)] = 30_000
    #: Seconds to wait for a new connection before PostgreSQL counts as away.
    connect_timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    #: As libpq's sslmode: ``prefer`` encrypts where the server can, only ``verify-…`` knows who it is.
    ssl_mode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    #: Certificates of the authorities that may vouch for the server; None: those the system trusts.
    ssl_ca_file: ReadableFile | None = None
    #: The client's own certificate, for servers that ask for one.
    ssl_cert_file: ReadableFile | None = None
    #: Its private key, not encrypted.
    ssl_key_file: ReadableFile | None = None

    @field_validator("direct_host")
    @classmethod
    def _direct_address_goes_with_a_pooler(cls, value: str | None, info: ValidationInfo) -> str | None:
        pooler = info.data.get("pooler")
        if pooler == "none":
            refuse_unused(value, "set POSTGRES_POOLER to session or transaction")
        elif pooler == "transaction" and value is None:
            raise invalid_setting(
                "needed with POSTGRES_POOLER=transaction: LISTEN, relays and migrations need whole sessions"
            )
        return value

    @field_validator("ssl_ca_file")
    @classmethod
    def _authorities_are_asked(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if info.data.get("ssl_mode") in ("disable", "prefer", "require"):
            refuse_unused(value, "set POSTGRES_SSL_MODE to verify-full or verify-ca")
        return value

    @field_validator("ssl_cert_file")
    @classmethod
    def _certificate_is_shown(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if info.data.get("ssl_mode") == "disable":
            refuse_unused(value, "set POSTGRES_SSL_MODE to verify-full, verify-ca or require")
        return value

    @field_validator("ssl_key_file")
    @classmethod
    def _key_has_its_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return require_key_file(value, info, "POSTGRES_SSL_CERT_FILE")

    def as_owner(self) -> "PostgresSettings":
        """The same server and database, connecting as the owner of the tables."""
        if self.owner_user is None:
            return self
        password = self.password if self.owner_password is None else self.owner_password
        return self.model_copy(update={"user": self.owner_user, "password": password})

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each server, in the order given."""
        return parse_addresses(self.host, self.port)

    @property
    def address(self) -> str:
        """Every server as ``host:port``, comma-separated, for messages."""
        return ", ".join(f"{host}:{port}" for host, port in self.addresses)

    def direct(self) -> "PostgresSettings":
        """The same database past the pooler; itself where ``POSTGRES_DIRECT_HOST`` is not set."""
        if self.direct_host is None:
            return self
        past = {"host": self.direct_host, "port": self.direct_port, "pooler": "none", "direct_host": None}
        return self.model_copy(update=past)
