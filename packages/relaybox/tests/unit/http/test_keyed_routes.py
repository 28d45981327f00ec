"""An application starts only if all its routes that accept idempotency keys can support them."""

from collections.abc import Callable
from typing import Annotated, Any, Self

import pytest
from fastapi import APIRouter, Depends, FastAPI
from pydantic import BaseModel, SecretStr
from relaybox.commands import Aggregate, Domain, Events
from relaybox.db import Database
from relaybox.events import Event
from relaybox.http import (
    Backbone,
    IdempotencyMiddleware,
    KeysIgnored,
    SharedSecretVerifier,
    UnitOfWork,
    aggregate_router,
    create_app,
    idempotent,
    unit_of_work,
)
from relaybox.settings import PostgresSettings

from packages.relaybox.tests.unit.http.conftest import JWT


class CreateJar(BaseModel):
    """The command that creates a jar."""


class Jar(Aggregate):
    """A jar."""

    def apply(self, event: Event) -> Self:
        return self


jars: Domain[Jar] = Domain("Shop.Jar", aggregate=Jar, aggregate_type="JAR")
CREATED = jars.event("Created")


@jars.command(creates=True)
def create(_: Jar, _command: CreateJar) -> Events:
    return [CREATED({})]


@pytest.fixture
def backbone() -> Backbone:
    settings = PostgresSettings(port=1, password=SecretStr("unused"))
    return Backbone(Database(settings, application_name="test"), [jars], verifier=SharedSecretVerifier(JWT))


def command_routes(backbone: Backbone) -> APIRouter:
    return aggregate_router(backbone, jars)


def unit_routes(backbone: Backbone) -> APIRouter:
    router = APIRouter()

    async def principal_of_test() -> str:
        return "ann"

    @router.post("")
    async def post(
        _unit: Annotated[UnitOfWork[str], Depends(unit_of_work(backbone.database, principal_of_test))],
    ) -> None:
        """Write in a unit of work."""

    _ = post
    return router


def marked_routes(_backbone: Backbone) -> APIRouter:
    router = APIRouter()

    @router.post("")
    @idempotent
    async def post() -> None:
        """Respond in cache mode."""

    _ = post
    return router


ROUTES = pytest.mark.parametrize("routes", [command_routes, unit_routes, marked_routes])
Routes = Callable[[Backbone], APIRouter]


async def starts(backbone: Backbone, app: FastAPI) -> None:
    async with backbone.lifespan(app):
        pass


def with_routes(app: FastAPI, backbone: Backbone, routes: Routes) -> FastAPI:
    around = APIRouter()
    around.include_router(routes(backbone), prefix="/jars")
    app.include_router(around, prefix="/shop")
    return app


def composed(backbone: Backbone, **others: Any) -> FastAPI:
    return create_app(
        title="t", version="1", lifespan=backbone.lifespan, checks={}, registry=backbone.registry, **others
    )


@ROUTES
async def test_plain_application_without_the_middleware_does_not_start(
    backbone: Backbone, routes: Routes
) -> None:
    app = with_routes(FastAPI(), backbone, routes)
    with pytest.raises(KeysIgnored, match=r"add_middleware\(IdempotencyMiddleware\)"):
        await starts(backbone, app)
    app.add_middleware(IdempotencyMiddleware)
    await starts(backbone, app)


@ROUTES
async def test_mounted_application_needs_the_middleware_itself_or_around_it(
    backbone: Backbone, routes: Routes
) -> None:
    app = FastAPI()
    app.mount("/mounted", with_routes(FastAPI(), backbone, routes))
    with pytest.raises(KeysIgnored):
        await starts(backbone, app)
    app.add_middleware(IdempotencyMiddleware)
    await starts(backbone, app)

    around = FastAPI()
    around.mount("/mounted", with_routes(composed(backbone), backbone, routes))
    await starts(backbone, around)


@ROUTES
async def test_created_application_honours_keys_by_construction(backbone: Backbone, routes: Routes) -> None:
    app = with_routes(composed(backbone), backbone, routes)
    await starts(backbone, app)


async def test_application_without_keyed_routes_needs_no_middleware(backbone: Backbone) -> None:
    app = FastAPI()
    app.get("/")(backbone.check_settings)
    await starts(backbone, app)


async def test_own_middleware_replaces_the_one_of_create_app(backbone: Backbone) -> None:
    app = composed(backbone)
    app.add_middleware(IdempotencyMiddleware, registry=backbone.registry)
    assert [one.cls for one in app.user_middleware].count(IdempotencyMiddleware) == 1  # type: ignore[comparison-overlap]
    assert app.build_middleware_stack()
