"""What every service of the backend reads from the environment beside its neighbours' settings."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from relaybox.telemetry import LogLevel

__all__ = ("ApiSettings", "ServiceSettings", "ServiceType")

Port = Annotated[int, Field(ge=1, le=65_535)]


class ServiceType(StrEnum):
    """The roles of the one image (``SERVICE_TYPE``)."""

    API_GATEWAY = "api-gateway"
    MESSAGE_RELAY = "message-relay"
    CONCEPT_AGENT = "concept-agent"


class ServiceSettings(BaseSettings):
    """What any service needs to know of itself."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    service_type: ServiceType
    log_level: LogLevel = "INFO"
    #: Lines for people instead of JSON; by default people get theirs on a terminal.
    log_json: bool | None = None
    #: Where relay and agent serve ``/healthz``, ``/readyz`` and ``/metrics``; the API has its own.
    health_host: str = "127.0.0.1"
    health_port: Port = 8001


class ApiSettings(BaseSettings):
    """How the API is served."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    api_host: str = "127.0.0.1"
    api_port: Port = 8000
    api_workers: Annotated[int, Field(ge=1, le=64)] = 1
    #: Comma-separated origins of browsers that may call the API; none by default.
    cors_origins: str = ""

    def origins(self) -> tuple[str, ...]:
        """The allowed origins."""
        return tuple(origin.strip() for origin in self.cors_origins.split(",") if origin.strip())
