"""Read settings from environment variables.

Each class reads the variables of one prefix. The name of a variable is this prefix and the name of the field
in capitals: ``KafkaSettings.host`` is ``KAFKA_HOST``. ``docs/reference/settings.md`` and ``.env.example``
document all variables.
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
    "DeadLetterSettings",
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


#: How a CloudEvent is written to a Kafka message: ``binary``, attributes as headers and data as the value; or
#: ``structured``, all in one JSON object.
CloudEventsMode = Literal["binary", "structured"]
#: Compression of the batches that a relay sends.
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
Settings = TypeVar("Settings", bound=BaseSettings)


class KafkaSettings(BaseSettings):
    """The address of Kafka, and how to authenticate."""

    model_config = SettingsConfigDict(env_prefix="KAFKA_", frozen=True, extra="ignore", env_ignore_empty=True)

    #: One or more brokers, comma-separated; each may have its own port (``name:9093``).
    host: str = "localhost"
    port: Port = 9092
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    #: Certificates of the authorities that sign the brokers' certificates; None: those of the system.
    ssl_ca_file: ReadableFile | None = None
    #: The client's certificate, for brokers that require one.
    ssl_cert_file: ReadableFile | None = None
    ssl_key_file: ReadableFile | None = None
    #: Password of the private key, if the key is encrypted.
    ssl_key_password: SecretStr | None = None

    @field_validator("sasl_mechanism", "sasl_username", "sasl_password")
    @classmethod
    def _credentials_need_sasl(cls, value: Any, info: ValidationInfo) -> Any:
        protocol = info.data.get("security_protocol")
        if protocol in ("PLAINTEXT", "SSL"):
            refuse_unused(value, "set KAFKA_SECURITY_PROTOCOL to SASL_SSL or SASL_PLAINTEXT")
        elif protocol is not None and value is None:
            raise invalid_setting(f"is missing: required if KAFKA_SECURITY_PROTOCOL is {protocol}")
        return value

    @field_validator("ssl_ca_file", "ssl_cert_file")
    @classmethod
    def _certificates_need_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if info.data.get("security_protocol") in ("PLAINTEXT", "SASL_PLAINTEXT"):
            refuse_unused(value, "set KAFKA_SECURITY_PROTOCOL to SASL_SSL or SSL")
        return value

    @field_validator("ssl_key_file")
    @classmethod
    def _key_needs_its_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return require_key_file(value, info, "KAFKA_SSL_CERT_FILE")

    @field_validator("ssl_key_password")
    @classmethod
    def _password_needs_its_key(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if info.data.get("ssl_key_file", ...) is None:
            refuse_unused(value, "set KAFKA_SSL_KEY_FILE")
        return value

    @property
    def bootstrap_servers(self) -> str:
        """The brokers as ``host:port``, comma-separated."""
        return ",".join(
            address_with_port(one.strip(), self.port) for one in self.host.split(",") if one.strip()
        )

    def client_config(self) -> dict[str, Any]:
        """Return the settings that each Kafka client needs to connect, under librdkafka's names.

        The values contain passwords in clear: pass them to a client's constructor, and never log them.
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

    def file_stamps(self) -> list[tuple[int, int] | None]:
        """Return a value per certificate or key file that changes when the file's content or rights change.

        A Kafka client reads the files only when it is created, so a change requires a new client. The value
        is None if the file cannot be accessed.
        """
        files = (self.ssl_ca_file, self.ssl_cert_file, self.ssl_key_file)
        return [_stamp(file) for file in files if file is not None]


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ctime_ns, status.st_ino


def _plain(value: str | Path | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


class RelaySettings(BaseSettings):
    """Settings of the message relay."""

    model_config = SettingsConfigDict(env_prefix="RELAY_", frozen=True, extra="ignore", env_ignore_empty=True)

    #: Seconds after which the relay reads the outbox again if no notification of new rows arrives.
    poll_interval: Annotated[float, Field(gt=0, le=3_600)] = 5.0
    #: Maximum number of rows that a query reads from the outbox for the next batches. In a backlog, the relay
    #: doubles the number after each full query, up to 5,000 rows or 50 times this number if that is lower.
    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 100
    #: ``exactly-once``: Kafka transactions, so that ``read_committed`` consumers find each event once on its
    #: topic. ``at-least-once``: no transactions; after a failure, events may be on the topic twice.
    delivery: Literal["exactly-once", "at-least-once"] = "exactly-once"
    #: How events are written to Kafka messages.
    cloudevents: CloudEventsMode = "binary"
    #: Compression of record batches. For an event of 540 bytes, which takes 944 bytes on the broker's disk
    #: without compression, lz4 takes 0.7 µs of CPU and 186 bytes, zstd takes 1.8 µs and 110 bytes, and gzip
    #: takes 18 µs. With zstd, sending a single event takes longer.
    compression: Compression = "lz4"
    #: Whether the relay creates missing topics of ``OUTBOX_TOPICS``. If not, the relay ends with an error
    #: that names the missing topics.
    create_topics: bool = True
    #: Partitions of a created topic; never change them later, because that breaks the order per key.
    topic_partitions: Annotated[int, Field(ge=1, le=10_000)] = 8
    #: Replicas of each partition of a created topic, and of the relay's control topic. None: three, or the
    #: number of brokers if that is lower.
    topic_replication: Annotated[int, Field(ge=1, le=100)] | None = None
    #: ``min.insync.replicas`` of a created topic. None: the number of replicas minus one, but at least one
    #: and at most two.
    topic_min_isr: Annotated[int, Field(ge=1, le=100)] | None = None
    #: Seconds after the last heartbeat of a relay until another relay takes over its lanes (slices of keys).
    lease_s: Annotated[float, Field(gt=0, le=3_600)] = 3.0
    #: Hours for which a SENT row stays in the outbox. The row is removed after this time, normally at the
    #: latest after 1.5 times this time. The default equals Kafka's default retention, so that ``relaybox
    #: verify`` can compare outbox and topics. PENDING and FAILED rows are never removed.
    retention_h: Annotated[float, Field(gt=0, le=100_000)] = 168.0

    @field_validator("topic_min_isr")
    @classmethod
    def _at_most_the_replicas(cls, value: int | None, info: ValidationInfo) -> int | None:
        replicas = info.data.get("topic_replication")
        if value is not None and replicas is not None and value > replicas:
            raise invalid_setting(
                f"must be at most RELAY_TOPIC_REPLICATION, {replicas}; otherwise no record could be published"
            )
        return value


class TaskSettings(BaseSettings):
    """Settings of asynchronous tasks."""

    model_config = SettingsConfigDict(env_prefix="TASK_", frozen=True, extra="ignore", env_ignore_empty=True)

    #: Seconds after the last renewal until another worker may claim the task (G06).
    lease_s: Annotated[float, Field(gt=0, le=3_600)] = 60.0
    #: Number of attempts at a task; then the task runner calls ``on_exhausted`` instead of the worker.
    attempts_max: Annotated[int, Field(ge=1, le=100)] = 3
    #: Maximum number of tasks that a process runs at the same time.
    concurrency: Annotated[int, Field(ge=1, le=100)] = 4
    #: Seconds after which the task runner looks for tasks again if :meth:`TaskRunner.wake` is not called.
    poll_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    #: Seconds for which a stopping process waits for its running tasks.
    stop_grace_s: Annotated[float, Field(ge=0, le=60)] = 7.0


class HttpSettings(BaseSettings):
    """Time limits in which a client must send its request."""

    model_config = SettingsConfigDict(env_prefix="HTTP_", frozen=True, extra="ignore", env_ignore_empty=True)

    #: Seconds from the connection, or from a request's first byte, to the end of the request's head.
    head_timeout_s: Annotated[float, Field(gt=0, le=600)] = 15.0
    #: Seconds in which a body must arrive; the limit is extended for the bytes that have arrived.
    body_timeout_s: Annotated[float, Field(gt=0, le=3_600)] = 20.0
    #: Lowest rate of a body, in bytes per second: after n bytes have arrived, the time limit is
    #: ``body_timeout_s`` + n / this rate. By default, a body of 20 MiB may take 11 minutes.
    body_rate_min_bytes_s: Annotated[int, Field(ge=1_024, le=2**30)] = 32 * 1024


class IdempotencySettings(BaseSettings):
    """How long responses to requests with an idempotency key are stored, and the secret to hash the keys."""

    model_config = SettingsConfigDict(
        env_prefix="IDEMPOTENCY_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    #: Secret of the keyed hash under which idempotency keys are stored. None: a hash without a secret, with
    #: which a reader of the table can test whether a guessed key was used. All processes need the same
    #: secret, because a process with another secret does not find the stored responses.
    secret: Annotated[SecretStr, Field(min_length=32)] | None = None
    #: Hours for which a response is stored; after that, a request with its key is executed again (G70).
    ttl_h: Annotated[float, Field(gt=0, le=8_760)] = 24.0
    #: Largest response body that is stored. If a response was larger, a repeated request gets 410 and is not
    #: executed again (G67). Also the largest request body that the IdempotencyMiddleware reads in cache mode;
    #: a larger body gets 413.
    body_bytes_max: Annotated[int, Field(ge=0, le=64 * 1024 * 1024)] = 1024 * 1024
    #: Seconds between two removals of expired records.
    sweep_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0


class DeadLetterSettings(BaseSettings):
    """Whether consumers also publish the messages that they park."""

    model_config = SettingsConfigDict(
        env_prefix="DEAD_LETTER_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    #: Topic that gets each parked message once, through the outbox; one of ``OUTBOX_TOPICS``. None: no topic.
    topic: str | None = None


class RetentionSettings(BaseSettings):
    """How long ended commands, ended tasks, records of consumed events and resolved dead letters are kept.

    0 hours keeps the rows for ever.
    """

    model_config = SettingsConfigDict(
        env_prefix="RETENTION_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    #: Hours from the creation of a command until the command is removed, if it has ended by then. After that,
    #: a request for the state of the command gets 404.
    commands_h: Annotated[float, Field(ge=0, le=1_000_000)] = 720.0
    #: Hours for which a task is kept after it ended.
    tasks_h: Annotated[float, Field(ge=0, le=1_000_000)] = 720.0
    #: Hours for which the library keeps its record that a consumer group has consumed an event. This time
    #: must be longer than ``retention.ms`` of the topic: otherwise a group that reads the topic again would
    #: process the event again (G40). The library does not know ``retention.ms``, so the default keeps the
    #: records for ever.
    consumed_events_h: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0
    #: Hours for which a dead letter is kept after it was replayed or discarded; an unresolved one stays.
    dead_letters_h: Annotated[float, Field(ge=0, le=1_000_000)] = 720.0
    #: Hours for which a resume handle of a flow is kept after its pause has ended. Also the hours for which
    #: an event is kept after its arrival, for flows that begin to wait for the event later.
    flows_h: Annotated[float, Field(ge=0, le=1_000_000)] = 720.0


class JwtSettings(BaseSettings):
    """How bearer tokens are verified (RFC 7519): HS256 with a shared secret.

    The secret must have at least 32 characters, because RFC 7518 (section 3.2) requires at least the size of
    the digest, 32 bytes.
    """

    model_config = SettingsConfigDict(env_prefix="JWT_", frozen=True, extra="ignore", env_ignore_empty=True)

    secret: Annotated[SecretStr, Field(min_length=32)]
    #: Required value of the claim ``iss``.
    issuer: Annotated[str, Field(min_length=1)] = "relaybox"
    #: Required value of the claim ``aud``.
    audience: Annotated[str, Field(min_length=1)] = "relaybox-api"
    #: Seconds by which the clocks of issuer and server may differ.
    leeway_s: Annotated[int, Field(ge=0, le=60)] = 30


def load_settings(kind: type[Settings]) -> Settings:
    """Read the settings class *kind* from the environment.

    Raises:
        SettingsError: A setting is missing or malformed. The message has one line per setting. It does not
            contain the value, which may be a secret.
    """
    try:
        return kind()
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        lines = [
            # The location of a field with an alias is the name of the variable, prefix included.
            f"{prefix}{'_'.join(map(str, problem['loc'])).upper().removeprefix(prefix)}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError("\n".join(lines)) from None


def check_settings(*kinds: type[BaseSettings]) -> None:
    """Read each of the settings classes *kinds* from the environment, and report all errors together.

    Raises:
        SettingsError: A setting is missing or malformed; the message has one line per such setting.
    """
    lines: list[str] = []
    for kind in kinds:
        try:
            load_settings(kind)
        except SettingsError as error:
            lines.append(str(error))
    if lines:
        raise SettingsError("\n".join(lines))
