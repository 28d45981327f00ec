"""Create routes that create aggregates and return their state."""

from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from fastapi import APIRouter, Request
from starlette.responses import Response

from relaybox.commands import Aggregate, AggregateNotFound, Command, CommandResult, Domain, Handler
from relaybox.http._auth import AUTH_ERRORS
from relaybox.http._backbone import Backbone
from relaybox.http._body import BODY_ERRORS, json_body, read_model
from relaybox.http._error_responses import error_responses
from relaybox.http._routes import (
    COMMAND_ERRORS,
    DATABASE_ERRORS,
    CommandRoutes,
    caller_of,
    id_of,
    json_response,
    respond_to_command,
)
from relaybox.http._tokens import Principal
from relaybox.idempotency import ResponseParts

__all__ = ("aggregate_router",)

A = TypeVar("A", bound=Aggregate)


def aggregate_router(backbone: Backbone, domain: Domain[A]) -> APIRouter:
    """Return all routes of a domain, for an application whose clients may see aggregates as they are stored.

    ``POST ""`` creates an aggregate: the body of the request is the payload of the domain's creating command,
    and the response is 201 with the aggregate. ``GET /{…_id}/state`` returns an aggregate to its owner. The
    other routes are those of :func:`command_router`. An application that shows its aggregates in another form
    uses :func:`command_router` alone, and writes the routes that create and return aggregates.

    Raises:
        TypeError: The domain does not declare exactly one creating command that clients may send.
    """
    # All routes are in one router, because FastAPI matches the routes of a nested router once more per level.
    routes = _AggregateRoutes(backbone, domain)
    routes.add_command_routes()
    routes.add_aggregate_routes()
    return routes.router


def _creating(domain: Domain[Any]) -> Handler[Any]:
    creating = [one for one in domain.handlers.values() if one.creates and not one.internal]
    if len(creating) != 1:
        raise TypeError(
            f"{domain.name} declares {len(creating)} creating commands instead of one; "
            "write the routes that create aggregates, and use command_router for the others"
        )
    return creating[0]


class _AggregateRoutes(CommandRoutes[A]):
    """The routes of one domain's commands, and those that create an aggregate and show its state."""

    def __init__(self, backbone: Backbone, domain: Domain[A]) -> None:
        super().__init__(backbone, domain)
        self._creating = _creating(domain)

    def add_aggregate_routes(self) -> None:
        """Add the route that creates an aggregate, and the route that returns an aggregate's state."""
        model, refusals = self._creating.model, self._creating.refuses
        created = {"model": self.domain.aggregate, "headers": {"Location": {"schema": {"type": "string"}}}}
        self.add(
            "POST",
            "",
            self._create,
            {"principal": self.sender},
            status_code=201,
            summary=f"Create an aggregate by the command {model.__name__}",
            openapi_extra=json_body(model),
            responses={
                201: created,
                **error_responses(*AUTH_ERRORS, *BODY_ERRORS, *COMMAND_ERRORS, *refusals),
            },
        )
        self.add(
            "GET",
            f"{self.path}/state",
            self._state,
            {"principal": self.sender, "aggregate_id": self.path_id},
            summary="State of the aggregate",
            responses={
                200: {"model": self.domain.aggregate},
                **error_responses(*AUTH_ERRORS, AggregateNotFound, *DATABASE_ERRORS),
            },
        )

    async def _create(self, request: Request, principal: Principal) -> Response:
        model = self._creating.model
        body = await read_model(request, model)
        command = Command(
            aggregate_id=uuid4(),
            command_type=model.__name__,
            payload=body.model_dump(mode="json"),
            creates=True,
            caller=caller_of(request, principal, self.backbone.service),
        )
        respond = partial(_created, request.url.path)
        return await respond_to_command(request, principal, command, self.backbone, self.domain, respond)

    async def _state(self, aggregate_id: str, principal: Principal) -> Response:
        view = await self.backbone.commands.read(self.domain, id_of(aggregate_id), actor=principal.subject)
        return Response(view.aggregate.model_dump_json(), media_type="application/json")


def _created(path: str, result: CommandResult) -> ResponseParts:
    # The members have the names of the model's fields, not their aliases, as in the route ``…/state``.
    body = result.aggregate.model_dump(mode="json")
    return json_response(201, body, location=f"{path}/{result.aggregate_id}/state")
