"""The HTTP API of the bank."""

from accounts import accounts
from balances import router
from bank import backbone
from relaybox.http import aggregate_router, create_app
from relaybox.telemetry import check_postgres
from tables import MIGRATIONS

checks = {"postgres": check_postgres(backbone.database, *MIGRATIONS)}
app = create_app(
    title="Bank", version="1", lifespan=backbone.lifespan, registry=backbone.registry, checks=checks
)
app.include_router(aggregate_router(backbone, accounts), prefix="/accounts")
app.include_router(router)
