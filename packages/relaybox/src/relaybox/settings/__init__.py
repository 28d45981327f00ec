"""Settings by environment, one class per neighbour, read once at the composition root.

Every name is public (contract, section 7) and documented in ``.env.example``.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from relaybox.errors import SettingsError
from relaybox.settings._postgres import PostgresSettings
from relaybox.settings._values import (
    Port,
    ReadableFile,
    address_with_port,
    invalid_setting,
    refuse_unused,
    require_key_file,
)

__all__ = (
    "CloudEventsMode",
    "Compression",
    "HttpSettings",
    "IdempotencySettings",
    "JwtSettings",
    "KafkaSettings",
    "PostgresSettings",
    "RelaySettings",
    "RetentionSettings",
    "TaskSettings",
    "check_settings",
    "load_settings",
)


#: How a CloudEvent becomes a Kafka message: attributes as headers, or all in one JSON object.
CloudEventsMode = Literal["binary", "structured"]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
Settings = TypeVar("Settings", bound=BaseSettings)


class KafkaSettings(BaseSettings):
    """Where Kafka is, and how to get in."""

    model_config = SettingsConfigDict(env_prefix="KAFKA_", frozen=True, extra="ignore", env_ignore_empty=True)

    #: One broker or several, comma-separated; each may have a port of its own (``name:9093``).
    host: str = "localhost"
    port: Port = 9092
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    #: Certificates of the authorities that may vouch for the brokers; None: those the system trusts.
    ssl_ca_file: ReadableFile | None = None
    #: The client's own certificate, for brokers that ask for one.
    ssl_cert_file: ReadableFile | None = None
    ssl_key_file: ReadableFile | None = None
    #: Of the private key, if it is encrypted.
    ssl_key_password: SecretStr | None = None

    @field_validator("sasl_mechanism", "sasl_username", "sasl_password")
    @classmethod
    def _credentials_go_with_sasl(cls, value: Any, info: ValidationInfo) -> Any:
        protocol = info.data.get("security_protocol")
        if protocol in ("PLAINTEXT", "SSL"):
            refuse_unused(value, "set KAFKA_SECURITY_PROTOCOL to SASL_SSL or SASL_PLAINTEXT")
        elif protocol is not None and value is None:
            raise invalid_setting(f"needed with KAFKA_SECURITY_PROTOCOL={protocol}")
        return value

    @field_validator("ssl_ca_file", "ssl_cert_file")
    @classmethod
    def _certificates_go_with_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if info.data.get("security_protocol") in ("PLAINTEXT", "SASL_PLAINTEXT"):
            refuse_unused(value, "set KAFKA_SECURITY_PROTOCOL to SASL_SSL or SSL")
        return value

    @field_validator("ssl_key_file")
    @classmethod
    def _key_has_its_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return require_key_file(value, info, "KAFKA_SSL_CERT_FILE")

    @field_validator("ssl_key_password")
    @classmethod
    def _password_has_its_key(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if info.data.get("ssl_key_file", ...) is None:
            refuse_unused(value, "set KAFKA_SSL_KEY_FILE")
        return value

    @property
    def bootstrap_servers(self) -> str:
        """``host:port``, comma-separated, as Kafka clients want it and people read it."""
        return ",".join(
            address_with_port(one.strip(), self.port) for one in self.host.split(",") if one.strip()
        )

    def client_config(self) -> dict[str, Any]:
        """How every client reaches the brokers, in librdkafka's names; the one place that knows.

        It holds passwords in clear: for a client's constructor, never for a log.
        """
        values = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password,
            "ssl.ca.location": self.ssl_ca_file,
            "ssl.certificate.location": self.ssl_cert_file,
            "ssl.key.location": self.ssl_key_file,
            "ssl.key.password": self.ssl_key_password,
        }
        return {name: _plain(value) for name, value in values.items() if value is not None}


def _plain(value: str | Path | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


class RelaySettings(BaseSettings):
    """How the message relay works."""

    model_config = SettingsConfigDict(env_prefix="RELAY_", frozen=True, extra="ignore", env_ignore_empty=True)

    #: Seconds between two polls when nobody tells of new rows.
    poll_interval: Annotated[float, Field(gt=0, le=3_600)] = 5.0
    #: Rows taken in one go.
    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 100
    #: ``exactly-once`` onto the topic, for readers of committed messages, or ``at-least-once``.
    delivery: Literal["exactly-once", "at-least-once"] = "exactly-once"
    cloudevents: CloudEventsMode = "binary"
    #: Of record batches. lz4 costs 0.7 µs of CPU per event of 540 bytes and leaves 186 of its 944 bytes on
    #: the broker's disk; zstd 1.8 µs and 110 bytes, but it doubles the time of a single event; gzip 18 µs.
    compression: Compression = "lz4"
    #: Whether missing topics of ``OUTBOX_TOPICS`` are created at the start; else the relay ends, naming them.
    create_topics: bool = True
    #: Partitions of a created topic; fixed for ever, or the order of keys breaks.
    topic_partitions: Annotated[int, Field(ge=1, le=10_000)] = 8
    #: Replicas of a created topic and of the relay's markers; None: three, or as many as there are brokers.
    topic_replication: Annotated[int, Field(ge=1, le=100)] | None = None
    #: Replicas that must have a record before it counts as published; None: one less than all, two at most.
    topic_min_isr: Annotated[int, Field(ge=1, le=100)] | None = None
    #: Seconds a relay may be silent before its lanes go to another one.
    lease_s: Annotated[float, Field(gt=0, le=3_600)] = 3.0
    #: Hours a SENT row stays in the outbox; it is gone after half as long again. As long as Kafka keeps
    #: messages by default, so that both can be compared. PENDING and FAILED rows stay for ever.
    retention_h: Annotated[float, Field(gt=0, le=100_000)] = 168.0

    @field_validator("topic_min_isr")
    @classmethod
    def _can_be_reached(cls, value: int | None, info: ValidationInfo) -> int | None:
        replicas = info.data.get("topic_replication")
        if value is not None and replicas is not None and value > replicas:
            raise invalid_setting(
                f"must be at most RELAY_TOPIC_REPLICATION, {replicas}: no record could be published"
            )
        return value


class TaskSettings(BaseSettings):
    """How asynchronous tasks are run."""

    model_config = SettingsConfigDict(env_prefix="TASK_", frozen=True, extra="ignore", env_ignore_empty=True)

    #: Seconds a worker may be silent before its task goes to another one (G06).
    lease_s: Annotated[float, Field(gt=0, le=3_600)] = 60.0
    #: Times a task is taken before it is given up.
    attempts_max: Annotated[int, Field(ge=1, le=100)] = 3
    #: Tasks a process works on at the same time.
    concurrency: Annotated[int, Field(ge=1, le=100)] = 4
    #: Seconds between two looks for tasks when nobody tells of new ones.
    poll_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    #: Seconds a running task gets to end when its process is told to stop.
    stop_grace_s: Annotated[float, Field(ge=0, le=60)] = 7.0


class HttpSettings(BaseSettings):
    """How long a client may take to send a request."""

    model_config = SettingsConfigDict(env_prefix="HTTP_", frozen=True, extra="ignore", env_ignore_empty=True)

    #: Seconds from the connection, or from a request's first byte, to the end of the request's head.
    head_timeout_s: Annotated[float, Field(gt=0, le=600)] = 15.0
    #: Seconds that the server waits for a body.
    body_timeout_s: Annotated[float, Field(gt=0, le=3_600)] = 20.0
    #: Bytes per second: after each so many bytes the server waits 1 s longer, so 20 MiB may take 11 minutes.
    body_rate_min_bytes_s: Annotated[int, Field(ge=1_024, le=2**30)] = 32 * 1024


class IdempotencySettings(BaseSettings):
    """How long answers to keyed requests are remembered, and under which secret."""

    model_config = SettingsConfigDict(
        env_prefix="IDEMPOTENCY_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    #: Keys are stored as a keyed hash. Without a secret whoever reads the table can find out whether a key
    #: they guess is in it. All processes need the same one; under another, stored answers are not found.
    secret: Annotated[SecretStr, Field(min_length=32)] | None = None
    #: Hours an answer is kept; afterwards its key is a new request (G70).
    ttl_h: Annotated[float, Field(gt=0, le=8_760)] = 24.0
    #: An answer with a larger body is remembered without it: executed, and never again (G67).
    body_bytes_max: Annotated[int, Field(ge=0, le=64 * 1024 * 1024)] = 1024 * 1024
    #: Seconds between two removals of what has expired.
    sweep_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0


class RetentionSettings(BaseSettings):
    """How long rows are kept that nothing works on any more; 0 hours for ever."""

    model_config = SettingsConfigDict(
        env_prefix="RETENTION_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    #: Hours a command is kept in ``command_inbox`` after it came; afterwards its status is 404.
    commands_h: Annotated[float, Field(ge=0, le=1_000_000)] = 720.0
    #: Hours a task is kept in ``async_tasks`` after it ended.
    tasks_h: Annotated[float, Field(ge=0, le=1_000_000)] = 720.0
    #: Hours the record that a group has consumed an event is kept. It must outlive the event on its topic
    #: (``retention.ms``): else a group that reads its topic again handles it again (G40). How long that is,
    #: only the broker knows, so the default keeps the records for ever.
    consumed_events_h: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0


class JwtSettings(BaseSettings):
    """How bearer tokens are checked (RFC 7519); HS256 by a shared secret.

    The secret must hold at least 32 bytes, the size of the digest (RFC 7518, section 3.2).
    """

    model_config = SettingsConfigDict(env_prefix="JWT_", frozen=True, extra="ignore", env_ignore_empty=True)

    secret: Annotated[SecretStr, Field(min_length=32)]
    issuer: Annotated[str, Field(min_length=1)] = "relaybox"
    audience: Annotated[str, Field(min_length=1)] = "relaybox-api"
    leeway_s: Annotated[int, Field(ge=0, le=60)] = 30


def load_settings(kind: type[Settings]) -> Settings:
    """Read *kind* from the environment.

    Raises:
        SettingsError: a setting is missing or malformed; the message has one line per setting
            and never the value, which may be a secret.
    """
    try:
        return kind()
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        lines = [
            # An alias is the whole name already.
            f"{prefix}{'_'.join(map(str, problem['loc'])).upper().removeprefix(prefix)}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError("\n".join(lines)) from None


def check_settings(*kinds: type[BaseSettings]) -> None:
    """Read each of *kinds* from the environment and report everything that is wrong with them together.

    Raises:
        SettingsError: one line per setting of any of *kinds* that is missing or malformed.
    """
    lines: list[str] = []
    for kind in kinds:
        try:
            load_settings(kind)
        except SettingsError as error:
            lines.append(str(error))
    if lines:
        raise SettingsError("\n".join(lines))
