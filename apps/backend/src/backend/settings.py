"""Settings of the backend that the library does not have."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from relaybox.settings import PostgresSettings

__all__ = (
    "DATABASE",
    "ApiSettings",
    "GenesisSettings",
    "ProductPostgresSettings",
    "RoleSettings",
    "ServiceType",
    "WorkspaceSettings",
)

#: The default name of the product's database.
DATABASE: Final = "infinite_scribe"
Port = Annotated[int, Field(ge=1, le=65_535)]


class ServiceType(StrEnum):
    """The services of the image (``SERVICE_TYPE``)."""

    API_GATEWAY = "api-gateway"
    MESSAGE_RELAY = "message-relay"
    CONCEPT_AGENT = "concept-agent"
    WORKSPACE_WORKER = "workspace-worker"


class RoleSettings(BaseSettings):
    """The service that this process runs."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    service_type: ServiceType


class ProductPostgresSettings(PostgresSettings):
    """The library's settings of PostgreSQL, with another default of POSTGRES_DB: the product's database."""

    db: str = DATABASE


class ApiSettings(BaseSettings):
    """Address, number of workers and CORS of the API."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    api_host: str = "127.0.0.1"
    api_port: Port = 8000
    api_workers: Annotated[int, Field(ge=1, le=64)] = 1
    #: Comma-separated origins (``https://host``) whose pages may call the API; empty: no other origin.
    cors_origins: str = ""

    def origins(self) -> tuple[str, ...]:
        """Return the allowed origins."""
        return tuple(origin.strip() for origin in self.cors_origins.split(",") if origin.strip())


class GenesisSettings(BaseSettings):
    """Limits of guided runs, the flows that lead a user through all stages of a Genesis session."""

    model_config = SettingsConfigDict(
        env_prefix="GENESIS_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    #: Hours after its start when a guided run expires.
    guided_run_h: Annotated[float, Field(gt=0, le=8_784)] = 72.0


class WorkspaceSettings(BaseSettings):
    """Limits of the recycle bin and of exports."""

    model_config = SettingsConfigDict(
        env_prefix="WORKSPACE_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    #: Days after which nodes in the bin are purged automatically; 0 for never.
    trash_keep_days: Annotated[int, Field(ge=0, le=36_500)] = 30
    #: Hours for which the zip file of an export is kept.
    export_keep_h: Annotated[float, Field(gt=0, le=100_000)] = 24.0
    #: Maximum number of exports of one user that are pending or running.
    export_open_max: Annotated[int, Field(ge=1, le=1_000)] = 3
    #: Number of pending or running exports of one node at which only editors may start further exports.
    export_node_open_max: Annotated[int, Field(ge=1, le=10_000)] = 10
    #: Maximum size of the file of one export, in bytes. PostgreSQL stores no value above 1 GiB.
    export_bytes_max: Annotated[int, Field(ge=1, le=500 * 1024 * 1024)] = 50 * 1024 * 1024
    #: Maximum size of all kept export files of one user, in bytes.
    export_kept_bytes_max: Annotated[int, Field(ge=1, le=1024**4)] = 200 * 1024 * 1024
