"""Create the FastAPI application of the API process, with the routes of Genesis and Workspace."""

from importlib.metadata import version
from typing import Final

from fastapi import FastAPI
from relaybox.http import Backbone, create_app
from relaybox.service import ServiceSettings, check_kafka
from relaybox.settings import JwtSettings, KafkaSettings, load_settings
from relaybox.telemetry import HealthState, check_postgres, configure_logging

from backend.genesis.routes import genesis_router
from backend.genesis.session import genesis
from backend.migrations import ALL
from backend.settings import ApiSettings, ProductPostgresSettings, ServiceType
from backend.workspace import WORKSPACE_ERROR_RESPONSES
from backend.workspace.http import SHARE_HEADER, ShareTokenCaching
from backend.workspace.routes import workspace_router

__all__ = ("PREFIX", "WORKSPACE_PREFIX", "create_api")

PREFIX: Final = "/api/v1/genesis/sessions"
WORKSPACE_PREFIX: Final = "/api/v1"


def create_api() -> FastAPI:
    """Create the application from the environment; uvicorn calls this once in each worker process.

    Raises:
        SettingsError: Settings are missing or malformed; the message has one line per setting.
    """
    service, api = load_settings(ServiceSettings), load_settings(ApiSettings)
    configure_logging(ServiceType.API_GATEWAY.value, service.log_level, service.log_json)
    backbone = Backbone.from_environment(
        [genesis], service=ServiceType.API_GATEWAY.value, postgres=ProductPostgresSettings
    )
    # The lifespan checks the settings too. But the parent of several workers calls this function before it
    # starts them: invalid settings must end the parent here, or it would start failing workers again and
    # again.
    backbone.check_settings()
    app = create_app(
        title="Genesis",
        version=version("relaybox-backend"),
        lifespan=backbone.lifespan,
        checks={
            "postgres": check_postgres(backbone.database, *ALL),
            "kafka": check_kafka(load_settings(KafkaSettings), when_unavailable=HealthState.DEGRADED),
        },
        registry=backbone.registry,
        cors_origins=api.origins(),
        cors_headers=[SHARE_HEADER],
        error_table=WORKSPACE_ERROR_RESPONSES,
    )
    app.include_router(genesis_router(backbone), prefix=PREFIX)
    app.add_middleware(ShareTokenCaching)
    app.include_router(workspace_router(backbone, load_settings(JwtSettings)), prefix=WORKSPACE_PREFIX)
    return app
