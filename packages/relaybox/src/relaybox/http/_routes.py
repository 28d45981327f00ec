"""Create the routes of a domain from its declaration, see docs/reference/http.md."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials
from pydantic_core import from_json, to_json
from relaybox_types.api import CommandAccepted, CommandRequest, CommandState, StreamTicket, TaskState
from starlette.responses import Response

from relaybox.commands import (
    Aggregate,
    AggregateNotFound,
    Caller,
    Command,
    CommandRefused,
    CommandResult,
    ConstraintViolated,
    Domain,
    DuplicateCommand,
    KeyedResponse,
    PayloadInvalid,
    StaleVersion,
    UnknownCommand,
)
from relaybox.db import DatabaseBusy, DatabaseUnavailable, load_queries
from relaybox.errors import RelayboxError
from relaybox.http._auth import AUTH_ERRORS, BEARER_SCHEME, bearer
from relaybox.http._backbone import Backbone
from relaybox.http._body import BODY_ERRORS, read_model
from relaybox.http._command_docs import document_commands
from relaybox.http._error_responses import error_responses
from relaybox.http._errors import BadHeader, ValidationFailed
from relaybox.http._idempotent_request import idempotent_request_of
from relaybox.http._requests import request_id_of
from relaybox.http._sse import EventStreamResponse
from relaybox.http._streams import (
    STREAM_RESPONSE,
    After,
    LastEventId,
    Ticket,
    issue_ticket,
    redeem_ticket,
    stream_cursor,
)
from relaybox.http._tokens import Principal
from relaybox.idempotency import (
    IdempotencyError,
    KeyInvalid,
    KeyReused,
    Replay,
    RequestInFlight,
    ResponseNotKept,
    ResponseParts,
)
from relaybox.outbox import MessageTooLarge
from relaybox.tasks import fetch_task
from relaybox.telemetry import current_traceparent

__all__ = (
    "COMMAND_ERRORS",
    "DATABASE_ERRORS",
    "KEY_ERRORS",
    "CommandRoutes",
    "caller_of",
    "command_router",
    "id_of",
    "json_response",
    "respond_to_command",
)

A = TypeVar("A", bound=Aggregate)

_SQL: Final = load_queries(__package__ or "relaybox.http", "http.sql")
#: Errors of a route that uses the database.
DATABASE_ERRORS: Final[tuple[type[RelayboxError], ...]] = (DatabaseUnavailable, DatabaseBusy)
#: Errors of a route that accepts idempotency keys.
KEY_ERRORS: Final[tuple[type[RelayboxError], ...]] = (KeyInvalid, RequestInFlight, KeyReused, ResponseNotKept)
#: Errors of a route that executes a command, beside those of body and token.
COMMAND_ERRORS: Final[tuple[type[RelayboxError], ...]] = (
    BadHeader,
    AggregateNotFound,
    UnknownCommand,
    PayloadInvalid,
    DuplicateCommand,
    StaleVersion,
    CommandRefused,
    ConstraintViolated,
    MessageTooLarge,
    *KEY_ERRORS,
    *DATABASE_ERRORS,
)
_READ_ERRORS: Final = (*AUTH_ERRORS, AggregateNotFound, *DATABASE_ERRORS)
#: JSON Schema of an id in a path. An id that is not a UUID gets the same 404 as an id that does not exist.
_UUID: Final[dict[str, Any]] = {"format": "uuid"}
Id = Annotated[str, Path(json_schema_extra=_UUID)]


def id_of(text: str) -> UUID:
    """Return the UUID that *text*, a path parameter, contains.

    Raises:
        AggregateNotFound: *text* is not a UUID.
    """
    try:
        return UUID(text)
    except ValueError:
        raise AggregateNotFound(text) from None


def caller_of(request: Request, principal: Principal, service: str) -> Caller:
    """Return the caller of a command: *principal*, with the ids and the trace context of *request*.

    *service* is the name of this service; the command's events have this name in ``source_service``.

    Raises:
        BadHeader: ``X-Correlation-Id`` is not a UUID.
    """
    return Caller(
        actor=principal.subject,
        source_service=service,
        request_id=request_id_of(request),
        traceparent=current_traceparent(),
        correlation_id=_correlation_of(request),
    )


async def respond_to_command(
    request: Request,
    principal: Principal,
    command: Command,
    backbone: Backbone,
    domain: Domain[Any],
    build_response: Callable[[CommandResult], ResponseParts],
) -> Response:
    """Execute *command* and return its response; if the key was used before, replay the stored response.

    Args:
        request: The request. If it has a key, the command's statement claims the key.
        principal: The sender; equal keys of different senders are different keys.
        command: The command to execute.
        backbone: The backbone, which executes the command.
        domain: The domain that declares the command.
        build_response: Builds the response from the result. Must be pure, because for a request with a key
            this function is called twice: for the response to store, and for the response to send.

    Returns:
        The response; an empty response if the middleware sends a stored response or an IdempotencyError
        instead.

    Raises:
        RelayboxError: See :meth:`relaybox.commands.CommandService.submit`.
        RuntimeError: The application has no :class:`IdempotencyMiddleware`, or the endpoint also has a unit
            of work.
    """
    idempotent = idempotent_request_of(request)
    try:
        await idempotent.leave_cache()
        claim = await idempotent.claim(request, principal) if idempotent.key.is_present else None
        if claim is not None:
            command = replace(
                command, keyed_response=KeyedResponse(claim=claim, build_response=build_response)
            )
        response = build_response(await backbone.submit(domain, command))
    except (Replay, IdempotencyError) as replacement:
        # The exception is not raised again: FastAPI would need more time for it than the rest of a replay.
        idempotent.replace_response(replacement)
        return Response()
    return Response(response.body, response.status, response.headers)


def json_response(status: int, body: object, *, location: str | None = None) -> ResponseParts:
    """Return a response with *body* as JSON, and a header ``Location`` unless *location* is None."""
    headers = {"content-type": "application/json"} | ({} if location is None else {"location": location})
    return ResponseParts(status=status, headers=headers, body=to_json(body))


def command_router(backbone: Backbone, domain: Domain[A]) -> APIRouter:
    """Return the routes of a domain that send commands, read commands and tasks, and stream events live.

    The application writes the routes that create, list and read aggregates, because the application defines
    the bodies of these requests and responses.
    """
    routes = CommandRoutes(backbone, domain)
    routes.add_command_routes()
    return routes.router


class CommandRoutes(Generic[A]):
    """The routes of one domain's commands, and the objects that their handlers share.

    The handlers have no docstring, because FastAPI would show a docstring to clients.
    """

    def __init__(self, backbone: Backbone, domain: Domain[A]) -> None:
        self.backbone = backbone
        self.domain = domain
        self.router = APIRouter(tags=[domain.name])
        self._authenticate = bearer(backbone.verifier)
        #: Default value for a handler's parameter ``principal``: FastAPI then passes the sender.
        self.sender: Any = Depends(self._authenticate)
        #: Default value for a handler's parameter ``aggregate_id``: FastAPI then passes the id from the path,
        #: whose parameter has the domain's name, ``domain.id_parameter``.
        self.path_id: Any = Path(alias=domain.id_parameter, json_schema_extra=_UUID)
        #: First part of the paths of routes for one aggregate: ``/{order_id}`` in the domain ``Shop.Order``.
        self.path = f"/{{{domain.id_parameter}}}"

    def add(
        self, method: str, path: str, handler: Callable[..., Any], defaults: Mapping[str, Any], **docs: Any
    ) -> None:
        """Add a route that calls *handler*.

        Args:
            method: HTTP method.
            path: Path, relative to the router.
            handler: Method of this class.
            defaults: Default values of parameters of *handler*, by name of the parameter.
            docs: More arguments of ``APIRouter.add_api_route``.
        """
        endpoint = partial(handler, **defaults)
        endpoint.__doc__ = None  # FastAPI would show the docstring of functools.partial
        name = handler.__name__.removeprefix("_")
        self.router.add_api_route(path, endpoint, methods=[method], name=name, **docs)

    def add_command_routes(self) -> None:
        """Add the routes of :func:`command_router`."""
        owned = {"principal": self.sender, "aggregate_id": self.path_id}
        read = error_responses(*_READ_ERRORS)
        self.add("POST", f"{self.path}/commands", self._send, {"principal": self.sender}, **self._send_docs())
        states = (
            (f"{self.path}/commands/{{command_id}}", self._command_state, "State of a command"),
            (f"{self.path}/tasks/{{task_id}}", self._task_state, "State of a task"),
        )
        for path, handler, summary in states:
            self.add("GET", path, handler, owned, summary=summary, responses=read)
        self.add(
            "POST",
            f"{self.path}/stream-ticket",
            self._stream_ticket,
            owned,
            status_code=201,
            summary="A ticket for the event stream",
            description=(
                "Creates a ticket for a browser, whose EventSource cannot send a token. "
                "The ticket opens one stream, within 60 seconds."
            ),
            responses=read,
        )
        self.add(
            "GET",
            f"{self.path}/events",
            self._events,
            {"subject": Depends(self._follower), "aggregate_id": self.path_id},
            summary="Events of the aggregate, live",
            description="Server-Sent Events; `id` is the aggregate's version, resume with `Last-Event-ID`.",
            response_class=Response,
            responses={**STREAM_RESPONSE, **error_responses(*_READ_ERRORS, ValidationFailed)},
        )

    def _send_docs(self) -> dict[str, Any]:
        name = self.domain.id_parameter
        responses: dict[int | str, dict[str, Any]] = {
            200: {"model": CommandAccepted, "description": "The command is completed"},
            202: {
                "model": CommandAccepted,
                "description": "The command is accepted; an agent works on it",
                "headers": {"Location": {"schema": {"type": "string"}, "description": "The command's state"}},
            },
        }
        errors = (*AUTH_ERRORS, *BODY_ERRORS, *COMMAND_ERRORS)
        extra = document_commands(self.domain, responses, *errors)
        schema = {"type": "string", **_UUID, "title": name.title().replace("_", " ")}
        extra["parameters"] = [{"name": name, "in": "path", "required": True, "schema": schema}]
        return {"summary": "Send a command", "openapi_extra": extra, "responses": responses}

    async def _send(self, request: Request, principal: Principal) -> Response:
        # The id is not a parameter of this function: FastAPI would extract and validate it in several steps.
        aggregate_id = id_of(request.path_params[self.domain.id_parameter])
        try:
            body = await read_model(request, CommandRequest)
        except ValidationFailed:
            # Whatever the body is, an aggregate of another principal gets 404: read() raises this error.
            await self.backbone.commands.read(self.domain, aggregate_id, actor=principal.subject)
            raise
        command = Command(
            aggregate_id=aggregate_id,
            command_type=body.command_type,
            payload=body.payload,
            expected_version=body.expected_version,
            caller=caller_of(request, principal, self.backbone.service),
        )
        return await respond_to_command(
            request, principal, command, self.backbone, self.domain, partial(_accepted, request)
        )

    async def _owned(self, aggregate_id: str, principal: Principal) -> UUID:
        view = await self.backbone.commands.read(self.domain, id_of(aggregate_id), actor=principal.subject)
        return view.aggregate.id

    async def _command_state(self, command_id: Id, aggregate_id: str, principal: Principal) -> CommandState:
        one_id, owned_id = id_of(command_id), await self._owned(aggregate_id, principal)
        async with self.backbone.database.connection() as connection:
            rows = await connection.fetch(_SQL["command"], one_id, owned_id)
        if not rows:
            raise AggregateNotFound(one_id)
        [row] = rows
        return CommandState(
            command_id=row["id"],
            command_type=row["command_type"],
            status=row["status"],
            created_at=row["created_at"],
            task_id=row["task_id"],
            error=None if row["error"] is None else from_json(row["error"]),
        )

    async def _task_state(self, task_id: Id, aggregate_id: str, principal: Principal) -> TaskState:
        one_id, owned_id = id_of(task_id), await self._owned(aggregate_id, principal)
        async with self.backbone.database.connection() as connection:
            task = await fetch_task(connection, one_id)
        if task is None or task.aggregate_id != owned_id:
            raise AggregateNotFound(one_id)
        return TaskState(
            task_id=task.id,
            task_type=task.task_type,
            status=task.status,
            progress=float(task.progress),
            created_at=task.created_at,
            updated_at=task.updated_at,
            result=task.result_data,
            error=task.error_data,
        )

    async def _stream_ticket(self, aggregate_id: str, principal: Principal) -> StreamTicket:
        owned_id = await self._owned(aggregate_id, principal)
        return await issue_ticket(self.backbone.database, owned_id, principal.subject)

    async def _follower(
        self,
        request: Request,
        # This parameter is only for the OpenAPI document. It is optional, because a client may send a ticket
        # instead of a token.
        _bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER_SCHEME)],
        ticket: Ticket = None,
    ) -> str:
        if ticket is not None:
            aggregate_id = id_of(request.path_params[self.domain.id_parameter])
            return await redeem_ticket(self.backbone.database, ticket, aggregate_id)
        return (await self._authenticate(request)).subject

    async def _events(
        self, subject: str, aggregate_id: str, last_event_id: LastEventId = None, after: After = 0
    ) -> Response:
        view = await self.backbone.commands.read(self.domain, id_of(aggregate_id), actor=subject)
        stream = self.backbone.live.follow(
            self.domain.aggregate_type,
            view.aggregate.id,
            after_version=stream_cursor(last_event_id, after),
            current_version=view.aggregate.version,
            event_types=self.domain.event_types,
        )
        return EventStreamResponse(stream)


def _accepted(request: Request, result: CommandResult) -> ResponseParts:
    body = {"command_id": result.command_id, "status": result.status, "message": result.message}
    if result.status == "COMPLETED":
        return json_response(200, body)
    return json_response(202, body, location=f"{request.url.path}/{result.command_id}")


def _correlation_of(request: Request) -> UUID | None:
    given = request.headers.get("x-correlation-id")
    if given is None:
        return None
    try:
        return UUID(given)
    except ValueError:
        raise BadHeader("X-Correlation-Id", "a UUID") from None
