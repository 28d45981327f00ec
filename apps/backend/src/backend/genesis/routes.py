"""The routes of sessions. ``command_router`` of the library adds the routes of commands."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Query, Request
from fastapi.security.base import SecurityBase
from pydantic_core import from_json, to_json
from relaybox.commands import AggregateNotFound, Command, CommandResult
from relaybox.errors import Detail
from relaybox.http import (
    AUTH_ERRORS,
    BEARER_SCHEME,
    BODY_ERRORS,
    DATABASE_ERRORS,
    KEY_ERRORS,
    Backbone,
    BadHeader,
    Principal,
    ValidationFailed,
    bearer,
    caller_of,
    command_router,
    error_responses,
    id_of,
    json_body,
    json_response,
    read_model,
    respond_to_command,
)
from relaybox.idempotency import ResponseParts
from shared_types.genesis_api import (
    CreateSessionRequest,
    GuidedRunState,
    SessionList,
    SessionState,
    SessionSummary,
)
from starlette.responses import Response

from backend.genesis._state import GenesisSession
from backend.genesis.session import SQL, CreateSession, genesis

__all__ = ("genesis_router",)


def genesis_router(backbone: Backbone) -> APIRouter:
    """Return all routes under ``/api/v1/genesis/sessions``."""
    authenticate = bearer(backbone.verifier)

    async def provide(request: Request) -> None:
        request.state.backbone, request.state.authenticate = backbone, authenticate

    # Add the routes to this router instead of including a second router: FastAPI matches a request once more
    # for each level of nested routers.
    router = command_router(backbone, genesis)
    router.dependencies.append(Depends(provide))
    router.add_api_route("", _create_session, methods=["POST"], **_CREATE)
    router.add_api_route("/", _create_session, methods=["POST"], include_in_schema=False)
    router.add_api_route("", _list_sessions, methods=["GET"], **_LIST)
    router.add_api_route("/", _list_sessions, methods=["GET"], include_in_schema=False)
    router.add_api_route("/{session_id}/state", _read_state, methods=["GET"], **_STATE)
    return router


class _Authenticated(SecurityBase):
    """Checks the bearer token of a request, and declares the security scheme in the OpenAPI document."""

    def __init__(self) -> None:
        self.model, self.scheme_name = BEARER_SCHEME.model, BEARER_SCHEME.scheme_name

    async def __call__(self, request: Request) -> Principal:
        return await request.state.authenticate(request)


_Sender = Annotated[Principal, Depends(_Authenticated())]

# The handlers have no docstrings: FastAPI would publish them in the OpenAPI document.
_CREATE: Final[dict[str, Any]] = {
    "name": "create",
    "status_code": 201,
    "summary": "Create a session",
    "openapi_extra": json_body(CreateSessionRequest),
    "responses": {
        201: {"model": SessionState, "headers": {"Location": {"schema": {"type": "string"}}}},
        **error_responses(*AUTH_ERRORS, *BODY_ERRORS, BadHeader, *KEY_ERRORS, *DATABASE_ERRORS),
    },
}


async def _create_session(request: Request, principal: _Sender) -> Response:
    backbone: Backbone = request.state.backbone
    body = await read_model(request, CreateSessionRequest)
    command = Command(
        aggregate_id=uuid4(),
        command_type=CreateSession.__name__,
        payload=body.model_dump(mode="json"),
        creates=True,
        caller=caller_of(request, principal, backbone.service),
    )
    respond = partial(_created, request.url.path.rstrip("/"))
    return await respond_to_command(request, principal, command, backbone, genesis, respond)


def _created(path: str, result: CommandResult) -> ResponseParts:
    return json_response(201, _state(result.aggregate, {}), location=f"{path}/{result.aggregate_id}/state")


_LIST: Final[dict[str, Any]] = {
    "name": "sessions",
    "summary": "List your sessions, newest first",
    "responses": error_responses(*AUTH_ERRORS, ValidationFailed, *DATABASE_ERRORS),
}


async def _list_sessions(
    request: Request,
    principal: _Sender,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> SessionList:
    arguments = (principal.subject, *(_position(cursor) if cursor else ()), limit + 1)
    async with request.state.backbone.database.connection() as connection:
        rows = await connection.fetch(SQL["list_after" if cursor else "list_first"], *arguments)
    return SessionList(
        items=[_summary(row) for row in rows[:limit]],
        next_cursor=_cursor(rows[limit - 1]) if len(rows) > limit else None,
    )


_STATE: Final[dict[str, Any]] = {
    "name": "state",
    "summary": "Read the state of a session",
    "responses": error_responses(*AUTH_ERRORS, AggregateNotFound, *DATABASE_ERRORS),
}


async def _read_state(request: Request, session_id: str, principal: _Sender) -> SessionState:
    backbone: Backbone = request.state.backbone
    view = await backbone.commands.read(genesis, id_of(session_id), actor=principal.subject)
    return _state(view.aggregate, view.pending)


def _state(session: GenesisSession, pending: Mapping[str, UUID]) -> SessionState:
    run = session.guided_run
    return SessionState(
        session_id=session.id,
        status=session.status,
        current_stage=session.current_stage,
        is_pending=bool(pending),
        pending_command_type=next(iter(pending), None),
        confirmed_data=session.confirmed_data,
        last_result=session.last_result,
        guided_run=run
        and GuidedRunState.model_validate(run.model_dump(include=set(GuidedRunState.model_fields))),
        version=session.version,
    )


def _summary(row: Mapping[str, Any]) -> SessionSummary:
    return SessionSummary(
        session_id=row["id"],
        novel_id=row["novel_id"],
        status=row["status"],
        current_stage=row["current_stage"],
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _cursor(row: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(to_json([row["created_at"], row["id"]])).decode()


def _position(cursor: str) -> tuple[datetime, UUID]:
    """Decode *cursor*: creation time and id of the last session of the previous page.

    Raises:
        ValidationFailed: The cursor is invalid.
    """
    try:
        created_at, last_id = from_json(base64.urlsafe_b64decode(cursor))
        # The driver of PostgreSQL needs UTC. A time in year 1 or 9999 may have no UTC equivalent
        # (OverflowError).
        return datetime.fromisoformat(created_at).astimezone(UTC), UUID(last_id)
    except (ValueError, TypeError, AttributeError, OverflowError):
        detail = Detail(field="query.cursor", message="invalid; use next_cursor of the previous page")
        raise ValidationFailed([detail]) from None
