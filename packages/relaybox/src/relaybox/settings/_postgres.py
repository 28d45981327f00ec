"""Read the settings of PostgreSQL, ``POSTGRES_*``."""

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


#: Names that mean the same with and without quotes in SQL.
_SCHEMA: Final = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")


class PostgresSettings(BaseSettings):
    """The address of PostgreSQL, and the roles of services and migrations.

    Services connect as ``user``. This role owns no table, so that PostgreSQL can refuse changes of recorded
    events and of the schema (G07). Migrations connect as ``owner_user``. If ``owner_user`` is not set, they
    connect as ``user`` too, and only a trigger protects recorded events.
    """

    model_config = SettingsConfigDict(
        env_prefix="POSTGRES_", frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    #: One or more servers, comma-separated; each may have its own port (``name:5433``).
    host: Annotated[str, AfterValidator(validate_addresses)] = "localhost"
    port: Port = 5432
    #: Which of the servers is used, as in libpq: ``read-write``, one that accepts writes; ``primary``, one
    #: that is not a standby; ``any``.
    target_session_attrs: Literal["any", "primary", "read-write"] = "read-write"
    #: The pooler at ``host``: ``none``, or the pool_mode of PgBouncer, ``session`` or ``transaction``.
    pooler: Literal["none", "session", "transaction"] = "none"
    #: Addresses of the servers behind the pooler, in the form of ``host``, for work that needs a server
    #: session of its own: LISTEN, relays and migrations. Required if ``pooler`` is ``transaction``. None:
    #: ``host``.
    direct_host: Annotated[str, AfterValidator(validate_addresses)] | None = None
    direct_port: Port = 5432
    db: str = "relaybox"
    #: Schema of all tables, types and functions of the library and its applications: the search_path of each
    #: connection. The alias avoids a field ``schema``, which would hide a method of Pydantic.
    schema_name: Annotated[str, AfterValidator(_plain_schema)] = Field(
        default="public", validation_alias="POSTGRES_SCHEMA"
    )
    #: Role of the services.
    user: str = "relaybox"
    password: SecretStr = SecretStr("")
    #: Role of the migrations, which owns the tables. None: ``user``.
    owner_user: str | None = None
    #: Password of ``owner_user``. None: ``password``.
    owner_password: SecretStr | None = None
    #: Maximum number of pooled connections of a process. Beside the pool, a process that waits for
    #: notifications (an API, a task runner) has one connection, for LISTEN, and a relay has at most six.
    pool_size: Annotated[int, Field(ge=1, le=200)] = 10
    #: Time after which a statement that waits for a lock fails; the API then responds with 503.
    lock_timeout_ms: Annotated[int, Field(ge=1, le=600_000)] = 3_000
    #: Time after which the server cancels a statement.
    statement_timeout_ms: Annotated[int, Field(ge=1, le=3_600_000)] = 15_000
    #: Time after which the server rolls back a transaction whose client is idle, to release its locks (G69).
    idle_in_transaction_timeout_ms: Annotated[int, Field(ge=100, le=3_600_000)] = 30_000
    #: Seconds to wait for a new connection before PostgreSQL counts as unavailable.
    connect_timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    #: As libpq's sslmode: ``prefer`` encrypts if the server supports TLS; only ``verify-ca`` and
    #: ``verify-full`` verify the server's certificate.
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
                "is missing: required if POSTGRES_POOLER is transaction, because LISTEN, relays and "
                "migrations need a session each"
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
        """Return settings that connect as ``owner_user``; unchanged if ``owner_user`` is None."""
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
        """The servers as ``host:port``, comma-separated, for messages."""
        return ", ".join(f"{host}:{port}" for host, port in self.addresses)

    def direct(self) -> "PostgresSettings":
        """Return settings that connect to ``direct_host``; unchanged settings if ``direct_host`` is None."""
        if self.direct_host is None:
            return self
        changes = {"host": self.direct_host, "port": self.direct_port, "pooler": "none", "direct_host": None}
        return self.model_copy(update=changes)
