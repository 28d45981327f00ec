"""Settings by environment, one class per neighbour, read once at the composition root.

Every name is public (contract, section 7) and documented in ``.env.example``.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from relaybox.errors import SettingsError

__all__ = (
    "JwtSettings",
    "KafkaSettings",
    "PostgresSettings",
    "RelaySettings",
    "TaskSettings",
    "load_settings",
)

Port = Annotated[int, Field(ge=1, le=65_535)]
Settings = TypeVar("Settings", bound=BaseSettings)


class PostgresSettings(BaseSettings):
    """Where PostgreSQL is, and as whom services and migrations connect.

    Services connect as ``user``, which owns no table, so that the database itself can refuse
    what the application must never do (G07). Migrations connect as ``owner_user``; left out,
    both are the same role and the append-only rule rests on a trigger alone.
    """

    model_config = SettingsConfigDict(
        env_prefix="POSTGRES_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    host: str = "localhost"
    port: Port = 5432
    db: str = "infinite_scribe"
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
    #: Seconds to wait for a new connection before PostgreSQL counts as away.
    connect_timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0

    def as_owner(self) -> "PostgresSettings":
        """The same server and database, connecting as the owner of the tables."""
        if self.owner_user is None:
            return self
        password = self.password if self.owner_password is None else self.owner_password
        return self.model_copy(update={"user": self.owner_user, "password": password})


class KafkaSettings(BaseSettings):
    """Where Kafka is."""

    model_config = SettingsConfigDict(env_prefix="KAFKA_", frozen=True, extra="ignore", env_ignore_empty=True)

    host: str = "localhost"
    port: Port = 9092

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` as Kafka clients want it."""
        return f"{self.host}:{self.port}"


class RelaySettings(BaseSettings):
    """How the message relay works."""

    model_config = SettingsConfigDict(env_prefix="RELAY_", frozen=True, extra="ignore", env_ignore_empty=True)

    #: Seconds between two polls when nobody tells of new rows.
    poll_interval: Annotated[float, Field(gt=0, le=3_600)] = 5.0
    #: Rows taken in one go.
    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 100
    delivery: Literal["at-least-once"] = "at-least-once"
    #: Seconds a relay may be silent before its lanes go to another one.
    lease_s: Annotated[float, Field(gt=0, le=3_600)] = 3.0


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
            f"{prefix}{'_'.join(map(str, problem['loc']))}".upper() + f": {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError("\n".join(lines)) from None
