"""Genesis over HTTP: creating, listing and reading sessions; commands come from their declaration."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Query, Request
from pydantic_core import from_json, to_json
from relaybox.commands import AggregateNotFound, Command, CommandResult
from relaybox.errors import Detail
from relaybox.http import (
    AUTH_ERRORS,
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
from shared_types.genesis_api import CreateSessionRequest, SessionList, SessionState, SessionSummary
from starlette.responses import Response

from backend.genesis._state import GenesisSession
from backend.genesis.session import SQL, CreateSession, genesis

__all__ = ("genesis_router",)


def genesis_router(backbone: Backbone) -> APIRouter:
    """All routes under ``/api/v1/genesis/sessions`` (contract, section 2)."""
    # Not included in a router of its own: FastAPI matches the routes of a nested router once more per level.
    router = command_router(backbone, genesis)
    _add_create(router, backbone)
    _add_list(router, backbone)
    _add_state(router, backbone)
    return router


def _add_create(router: APIRouter, backbone: Backbone) -> None:
    authenticated = Depends(bearer(backbone.verifier))

    @router.post("/", include_in_schema=False)
    @router.post(
        "",
        status_code=201,
        summary="Begin a session",
        openapi_extra=json_body(CreateSessionRequest),
        responses={
            201: {"model": SessionState, "headers": {"Location": {"schema": {"type": "string"}}}},
            **error_responses(*AUTH_ERRORS, *BODY_ERRORS, BadHeader, *KEY_ERRORS, *DATABASE_ERRORS),
        },
    )
    async def create(request: Request, principal: Annotated[Principal, authenticated]) -> Response:
        body = await read_model(request, CreateSessionRequest)
        command = Command(
            aggregate_id=uuid4(),
            command_type=CreateSession.__name__,
            payload=body.model_dump(mode="json"),
            creates=True,
            caller=caller_of(request, principal, backbone.service),
        )

        def created(result: CommandResult) -> ResponseParts:
            location = f"{request.url.path.rstrip('/')}/{result.aggregate_id}/state"
            return json_response(201, _state(result.aggregate, {}), location=location)

        return await respond_to_command(request, principal, command, backbone, genesis, created)

    _ = create


def _add_list(router: APIRouter, backbone: Backbone) -> None:
    authenticated = Depends(bearer(backbone.verifier))

    @router.get("/", include_in_schema=False, response_model=SessionList)
    @router.get(
        "",
        summary="Your sessions, newest first",
        responses=error_responses(*AUTH_ERRORS, ValidationFailed, *DATABASE_ERRORS),
    )
    async def sessions(
        principal: Annotated[Principal, authenticated],
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        cursor: Annotated[str | None, Query(max_length=200)] = None,
    ) -> SessionList:
        arguments = (principal.subject, *(_position(cursor) if cursor else ()), limit + 1)
        async with backbone.database.connection() as connection:
            rows = await connection.fetch(SQL["list_after" if cursor else "list_first"], *arguments)
        return SessionList(
            items=[_summary(row) for row in rows[:limit]],
            next_cursor=_cursor(rows[limit - 1]) if len(rows) > limit else None,
        )

    _ = sessions


def _add_state(router: APIRouter, backbone: Backbone) -> None:
    authenticated = Depends(bearer(backbone.verifier))

    @router.get(
        "/{session_id}/state",
        summary="Where a session stands",
        responses=error_responses(*AUTH_ERRORS, AggregateNotFound, *DATABASE_ERRORS),
    )
    async def state(session_id: str, principal: Annotated[Principal, authenticated]) -> SessionState:
        view = await backbone.commands.read(genesis, id_of(session_id), actor=principal.subject)
        return _state(view.aggregate, view.pending)

    _ = state


def _state(session: GenesisSession, pending: Mapping[str, UUID]) -> SessionState:
    return SessionState(
        session_id=session.id,
        status=session.status,
        current_stage=session.current_stage,
        is_pending=bool(pending),
        pending_command_type=next(iter(pending), None),
        confirmed_data=session.confirmed_data,
        last_result=session.last_result,
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
    """Where a page ended.

    Raises:
        ValidationFailed: the cursor is none of ours.
    """
    try:
        created_at, last_id = from_json(base64.urlsafe_b64decode(cursor))
        # A time at the end of the calendar has no equivalent in UTC, which PostgreSQL's driver wants.
        return datetime.fromisoformat(created_at).astimezone(UTC), UUID(last_id)
    except (ValueError, TypeError, AttributeError, OverflowError):
        detail = Detail(field="query.cursor", message="take it from next_cursor of the page before")
        raise ValidationFailed([detail]) from None
