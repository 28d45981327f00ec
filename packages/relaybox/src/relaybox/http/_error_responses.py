"""Map each error to the status, headers and extra fields of its response, in one table.

Each error body is ``{"error_code", "message", "request_id", …}``, see docs/reference/http.md. An HttpError
needs no entry in the table. Any other error that is not in the table is a defect: the error is logged with
its traceback, and the response is 500 INTERNAL_ERROR without details.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, TypeAlias, cast

import structlog
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from relaybox_types.api import ErrorBody
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response

from relaybox.commands import (
    AggregateNotFound,
    CommandRefused,
    ConstraintViolated,
    DuplicateCommand,
    PayloadInvalid,
    StaleVersion,
    UnknownCommand,
)
from relaybox.db import DatabaseBusy, DatabaseUnavailable, RetryTransaction
from relaybox.errors import RelayboxError, error_details
from relaybox.flows import (
    FlowAlreadyPaused,
    FlowAlreadyResumed,
    FlowCancelled,
    FlowDocumentInvalid,
    FlowExpired,
    FlowUnknown,
)
from relaybox.http._errors import BodyTooLarge, HttpError, UnsupportedMediaType, ValidationFailed
from relaybox.http._requests import request_id_of
from relaybox.idempotency import (
    KeyInvalid,
    KeyMissing,
    KeyReused,
    RequestInFlight,
    ResponseNotKept,
    StoreUnavailable,
)
from relaybox.outbox import MessageTooLarge
from relaybox.telemetry import traceback_of

__all__ = (
    "ERROR_TABLE",
    "REFUSAL",
    "ErrorResponse",
    "ErrorTable",
    "error_response",
    "error_responses",
    "framework_response",
    "install_error_handlers",
    "internal_error",
    "response_to",
)

#: Name of the error table in the ``state`` of an application.
_TABLE_NAME: Final = "relaybox_error_table"
_log: Final = structlog.get_logger(__name__)
#: Key of the ASGI scope under which the error that a response reports is stored, for outer middlewares.
REFUSAL: Final = "relaybox.refusal"
#: Error codes of HTTPExceptions, by status. For any other status, the error code is the name of the status in
#: ``http.HTTPStatus``; for these three statuses, the name differs between versions of Python.
_CODES: Final = {
    error.status: error.error_code for error in (BodyTooLarge, UnsupportedMediaType, ValidationFailed)
}


def _no_fields(_error: Any) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorResponse:
    """The response to one class of errors and its subclasses."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Function that gets the error, and returns more headers, such as ``Retry-After``.
    headers_of: Callable[[Any], Mapping[str, str]] = _no_fields
    #: Function that gets the error, and returns more fields of the body, such as ``duplicate_command_id``; a
    #: field ``message`` replaces the error's message.
    fields: Callable[[Any], Mapping[str, Any]] = _no_fields


ErrorTable: TypeAlias = Mapping[type[RelayboxError], ErrorResponse]
"""Responses by class of error, which apply to subclasses too; applications extend :data:`ERROR_TABLE`."""

#: Responses to the errors of the library.
ERROR_TABLE: Final[ErrorTable] = {
    # The error's message has the address of PostgreSQL and the cause, which only logs and /readyz show.
    DatabaseUnavailable: ErrorResponse(
        status=503,
        headers={"Retry-After": "5"},
        fields=lambda _error: {"message": "PostgreSQL is unreachable at the moment; try again later"},
    ),
    DatabaseBusy: ErrorResponse(status=503, headers={"Retry-After": "1"}),
    RetryTransaction: ErrorResponse(status=503, headers={"Retry-After": "1"}),
    ValidationFailed: ErrorResponse(status=422, fields=lambda error: {"details": error.details}),
    AggregateNotFound: ErrorResponse(status=404),
    UnknownCommand: ErrorResponse(status=422),
    PayloadInvalid: ErrorResponse(status=422, fields=lambda error: {"details": error.details}),
    DuplicateCommand: ErrorResponse(
        status=409, fields=lambda error: {"duplicate_command_id": str(error.duplicate_command_id)}
    ),
    StaleVersion: ErrorResponse(status=409, fields=lambda error: {"version": error.actual}),
    CommandRefused: ErrorResponse(
        status=422, fields=lambda error: {"details": error.details} if error.details else {}
    ),
    ConstraintViolated: ErrorResponse(status=409),
    # These errors report that a request cannot begin or end a pause of a flow. Other errors of flows are
    # defects of the application, with the response 500.
    FlowUnknown: ErrorResponse(status=404),
    FlowAlreadyPaused: ErrorResponse(status=409),
    FlowAlreadyResumed: ErrorResponse(status=409),
    FlowExpired: ErrorResponse(status=409),
    FlowCancelled: ErrorResponse(status=409),
    FlowDocumentInvalid: ErrorResponse(status=422),
    KeyInvalid: ErrorResponse(status=400),
    KeyMissing: ErrorResponse(status=400),
    RequestInFlight: ErrorResponse(status=409, headers={"Retry-After": "1"}),
    KeyReused: ErrorResponse(status=422),
    ResponseNotKept: ErrorResponse(
        status=410,
        fields=lambda error: {"original_status": error.original_status, "location": error.location},
    ),
    StoreUnavailable: ErrorResponse(
        status=503,
        headers={"Retry-After": "5"},
        fields=lambda _error: {"message": "Responses cannot be stored at the moment; try again later"},
    ),
    # Other errors of the outbox are defects of the application, with the response 500.
    MessageTooLarge: ErrorResponse(status=422),
}


def error_responses(
    *errors: type[RelayboxError], error_table: ErrorTable = ERROR_TABLE
) -> dict[int | str, dict[str, Any]]:
    """Return the argument ``responses`` of a route that may raise *errors*.

    The result has one entry per status, whose description lists the error codes with this status.

    Raises:
        LookupError: An error is neither in *error_table* nor an HttpError, so its response would be 500.
    """
    codes: dict[int, list[str]] = {}
    headers: dict[int, dict[str, Any]] = {}
    for error in errors:
        spec = _response_spec_of(error, error_table)
        if spec is None:
            raise LookupError(f"{error.__name__} has no response; add it to the error table")
        codes.setdefault(spec.status, []).append(error.error_code)
        for name in spec.headers:
            headers.setdefault(spec.status, {})[name] = {"schema": {"type": "string"}}
    return {
        status: {
            "model": ErrorBody,
            "description": f"{HTTPStatus(status).phrase}: {', '.join(sorted(set(codes[status])))}",
            **({"headers": headers[status]} if status in headers else {}),
        }
        for status in sorted(codes)
    }


def error_response(request: Request, error: RelayboxError, error_table: ErrorTable = ERROR_TABLE) -> Response:
    """Return the response to *error*; if none is defined for its class, log the traceback and return 500."""
    spec = _response_spec_of(type(error), error_table)
    if spec is None:
        return internal_error(request, error)
    request.scope[REFUSAL] = error
    fields = {"error_code": error.error_code, "message": str(error), **spec.fields(error)}
    return _response(request, spec.status, fields, {**spec.headers, **spec.headers_of(error)})


def response_to(request: Request, error: Exception) -> Response:
    """Return the response to any exception; the application's table applies to errors of Relaybox."""
    if isinstance(error, RelayboxError):
        app = request.scope.get("app")  # missing if the application is neither FastAPI nor Starlette
        table = getattr(app.state, _TABLE_NAME, ERROR_TABLE) if app else ERROR_TABLE
        return error_response(request, error, table)
    if isinstance(error, StarletteHTTPException):
        return framework_response(request, error)
    return internal_error(request, error)


def internal_error(request: Request, error: Exception) -> Response:
    """Return 500 INTERNAL_ERROR without details, and log the traceback with the same request id."""
    _log.error("http.unexpected", traceback=traceback_of(error))
    message = "An internal error occurred; the server's log has its cause under this request id"
    fields = {"error_code": "INTERNAL_ERROR", "message": message}
    return _response(request, 500, fields, {})


def install_error_handlers(app: FastAPI, error_table: ErrorTable) -> None:
    """Respond with the library's error body to RelayboxErrors, HTTPExceptions and invalid requests."""

    def ours(request: Request, error: Exception) -> Response:
        return error_response(request, cast("RelayboxError", error), error_table)

    def invalid(request: Request, error: Exception) -> Response:
        problems = cast("RequestValidationError", error).errors()
        return error_response(request, ValidationFailed(error_details(problems)), error_table)

    def framework(request: Request, error: Exception) -> Response:
        # FastAPI wraps an error of reading the body in an HTTPException; respond to the wrapped error.
        if isinstance(error.__cause__, RelayboxError):
            return error_response(request, error.__cause__, error_table)
        return framework_response(request, cast("HTTPException", error))

    setattr(app.state, _TABLE_NAME, error_table)
    app.add_exception_handler(RelayboxError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(StarletteHTTPException, framework)


def framework_response(request: Request, error: StarletteHTTPException) -> Response:
    """Return the response to an HTTPException of the framework or an endpoint."""
    status = HTTPStatus(error.status_code)
    detail: Any = error.detail
    fields = {
        "error_code": _CODES.get(status) or status.name,
        "message": detail if isinstance(detail, str) else status.phrase,
    }
    return _response(request, error.status_code, fields, error.headers or {})


def _response_spec_of(error: type[RelayboxError], error_table: ErrorTable) -> ErrorResponse | None:
    for base in error.__mro__:
        if base in error_table:
            return error_table[base]
        if issubclass(base, HttpError):
            return ErrorResponse(status=base.status, headers=base.headers)
    return None


def _response(
    request: Request, status: int, fields: Mapping[str, Any], headers: Mapping[str, str]
) -> Response:
    body = {**fields, "request_id": request_id_of(request)}
    return Response(to_json(body), status, dict(headers), media_type="application/json")
