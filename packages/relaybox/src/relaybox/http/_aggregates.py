"""Create routes that create aggregates and return their state."""

from typing import Annotated, Any, TypeVar
from uuid import uuid4

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from relaybox.commands import Aggregate, AggregateNotFound, Command, CommandResult, Domain, Handler
from relaybox.http._auth import AUTH_ERRORS, bearer
from relaybox.http._backbone import Backbone
from relaybox.http._body import BODY_ERRORS, json_body, read_model
from relaybox.http._error_responses import error_responses
from relaybox.http._routes import (
    COMMAND_ERRORS,
    DATABASE_ERRORS,
    caller_of,
    command_router,
    id_of,
    json_response,
    path_id_of,
    respond_to_command,
)
from relaybox.http._tokens import Principal
from relaybox.idempotency import ResponseParts

__all__ = ("aggregate_router",)

A = TypeVar("A", bound=Aggregate)


def aggregate_router(backbone: Backbone, domain: Domain[A]) -> APIRouter:
    """Every route of a domain whose aggregates clients may see as they are stored.

    ``POST ""`` takes the payload of the domain's one creating command and answers 201 with the new
    aggregate; ``GET /{…_id}/state`` shows one to its owner; the rest is :func:`command_router`, which
    an application with shapes of its own takes alone.

    Raises:
        TypeError: the domain declares no creating command, or several.
    """
    # Without a nested router: FastAPI matches the routes of a nested router once more per level.
    router = command_router(backbone, domain)
    _add_create(router, backbone, domain, _creating(domain))
    _add_state(router, backbone, domain)
    return router


def _creating(domain: Domain[Any]) -> Handler[Any]:
    creating = [one for one in domain.handlers.values() if one.creates and not one.internal]
    if len(creating) != 1:
        raise TypeError(
            f"{domain.name} declares {len(creating)} creating commands instead of one; "
            "write the routes that create aggregates, and use command_router for the others"
        )
    return creating[0]


def _add_create(router: APIRouter, backbone: Backbone, domain: Domain[A], handler: Handler[Any]) -> None:
    model = handler.model
    authenticated = Depends(bearer(backbone.verifier))

    @router.post(
        "",
        status_code=201,
        summary=f"Create by {model.__name__}",
        openapi_extra=json_body(model),
        responses={
            201: {"model": domain.aggregate, "headers": {"Location": {"schema": {"type": "string"}}}},
            **error_responses(*AUTH_ERRORS, *BODY_ERRORS, *COMMAND_ERRORS, *handler.refuses),
        },
    )
    async def create(request: Request, principal: Annotated[Principal, authenticated]) -> Response:
        body = await read_model(request, model)
        command = Command(
            aggregate_id=uuid4(),
            command_type=model.__name__,
            payload=body.model_dump(mode="json"),
            creates=True,
            caller=caller_of(request, principal, backbone.service),
        )

        def created(result: CommandResult) -> ResponseParts:
            location = f"{request.url.path}/{result.aggregate_id}/state"
            # With the names of the fields, as in the response of the state route.
            return json_response(201, result.aggregate.model_dump(mode="json"), location=location)

        return await respond_to_command(request, principal, command, backbone, domain, created)

    _ = create


def _add_state(router: APIRouter, backbone: Backbone, domain: Domain[A]) -> None:
    authenticated = Depends(bearer(backbone.verifier))

    @router.get(
        f"/{{{domain.id_parameter}}}/state",
        summary="State of the aggregate",
        responses={
            200: {"model": domain.aggregate},
            **error_responses(*AUTH_ERRORS, AggregateNotFound, *DATABASE_ERRORS),
        },
    )
    async def state(
        principal: Annotated[Principal, authenticated], one: str = path_id_of(domain)
    ) -> Response:
        view = await backbone.commands.read(domain, id_of(one), actor=principal.subject)
        return Response(view.aggregate.model_dump_json(), media_type="application/json")

    _ = state
