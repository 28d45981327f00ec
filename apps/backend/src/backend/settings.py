"""What every service of the backend reads from the environment beside its neighbours' settings."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from relaybox.settings import PostgresSettings

__all__ = (
    "DATABASE",
    "ApiSettings",
    "ProductPostgresSettings",
    "RoleSettings",
    "ServiceType",
    "WorkspaceSettings",
)

#: The contract's name of the product's database.
DATABASE: Final = "infinite_scribe"
Port = Annotated[int, Field(ge=1, le=65_535)]


class ServiceType(StrEnum):
    """The roles of the one image (``SERVICE_TYPE``)."""

    API_GATEWAY = "api-gateway"
    MESSAGE_RELAY = "message-relay"
    CONCEPT_AGENT = "concept-agent"
    WORKSPACE_WORKER = "workspace-worker"


class RoleSettings(BaseSettings):
    """Which of the services this process is."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    service_type: ServiceType


class ProductPostgresSettings(PostgresSettings):
    """Where the product's PostgreSQL is: the library's settings, with the product's database by default."""

    db: str = DATABASE


class ApiSettings(BaseSettings):
    """How the API is served."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    api_host: str = "127.0.0.1"
    api_port: Port = 8000
    api_workers: Annotated[int, Field(ge=1, le=64)] = 1
    #: Comma-separated origins of browsers that may call the API; none by default.
    cors_origins: str = ""

    def origins(self) -> tuple[str, ...]:
        """The allowed origins."""
        return tuple(origin.strip() for origin in self.cors_origins.split(",") if origin.strip())


class WorkspaceSettings(BaseSettings):
    """How the workspace treats what it holds."""

    model_config = SettingsConfigDict(
        env_prefix="WORKSPACE_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    #: After how many days in the bin something is purged by itself; 0 for never.
    trash_keep_days: Annotated[int, Field(ge=0, le=36_500)] = 30
    #: For how many hours the file of an export can be had.
    export_keep_h: Annotated[float, Field(gt=0, le=100_000)] = 24.0
    #: Exports of one person that may wait or run at the same time.
    export_open_max: Annotated[int, Field(ge=1, le=1_000)] = 3
    #: Exports of one node that may wait or run before people who cannot edit the node are refused another.
    export_node_open_max: Annotated[int, Field(ge=1, le=10_000)] = 10
    #: Bytes of the file of one export. PostgreSQL takes no value above 1 GiB.
    export_bytes_max: Annotated[int, Field(ge=1, le=500 * 1024 * 1024)] = 50 * 1024 * 1024
    #: Bytes of all files that are kept for one person.
    export_kept_bytes_max: Annotated[int, Field(ge=1, le=1024**4)] = 200 * 1024 * 1024
