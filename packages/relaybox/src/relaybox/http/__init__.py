"""FastAPI glue: errors, limits, bearer tokens, request ids, documentation, composition."""

from relaybox.http._aggregates import aggregate_router
from relaybox.http._answers import ANSWERS, ErrorAnswer, ErrorAnswers, error_response, error_responses
from relaybox.http._app import create_app
from relaybox.http._auth import AUTH_ERRORS, BEARER_SCHEME, Authenticate, bearer
from relaybox.http._backbone import Backbone
from relaybox.http._body import (
    BODY_BYTES_MAX,
    BODY_ERRORS,
    BodyLimitMiddleware,
    announced_bytes,
    json_body,
    limit_body,
    read_bytes,
    read_json,
    read_model,
)
from relaybox.http._errors import (
    AnswerUnkeepable,
    BadHeader,
    BodyTimeout,
    BodyTooLarge,
    HttpError,
    JsonNotStorable,
    JsonTooDeep,
    JsonTooManyValues,
    MalformedJson,
    TokenExpired,
    TokenInvalid,
    TokenMissing,
    UnsupportedMediaType,
    ValidationFailed,
    validation_details,
)
from relaybox.http._idempotency import IdempotencyMiddleware
from relaybox.http._idempotent import idempotent
from relaybox.http._live import Admit, Admitted
from relaybox.http._requests import RequestMiddleware, request_id_of
from relaybox.http._routes import (
    COMMAND_ERRORS,
    DATABASE_ERRORS,
    KEY_ERRORS,
    answer_once,
    caller_of,
    command_router,
    id_of,
    json_answer,
)
from relaybox.http._sse import EventStreamResponse
from relaybox.http._streams import (
    STREAM_ANSWER,
    After,
    LastEventId,
    Ticket,
    issue_ticket,
    redeem_ticket,
    stream_cursor,
)
from relaybox.http._tokens import Principal, SharedSecretVerifier, TokenVerifier, make_token
from relaybox.http._unit import UnitOfWork, unit_of_work, was_answered

__all__ = (
    "ANSWERS",
    "AUTH_ERRORS",
    "BEARER_SCHEME",
    "BODY_BYTES_MAX",
    "BODY_ERRORS",
    "COMMAND_ERRORS",
    "DATABASE_ERRORS",
    "KEY_ERRORS",
    "STREAM_ANSWER",
    "Admit",
    "Admitted",
    "After",
    "AnswerUnkeepable",
    "Authenticate",
    "Backbone",
    "BadHeader",
    "BodyLimitMiddleware",
    "BodyTimeout",
    "BodyTooLarge",
    "ErrorAnswer",
    "ErrorAnswers",
    "EventStreamResponse",
    "HttpError",
    "IdempotencyMiddleware",
    "JsonNotStorable",
    "JsonTooDeep",
    "JsonTooManyValues",
    "LastEventId",
    "MalformedJson",
    "Principal",
    "RequestMiddleware",
    "SharedSecretVerifier",
    "Ticket",
    "TokenExpired",
    "TokenInvalid",
    "TokenMissing",
    "TokenVerifier",
    "UnitOfWork",
    "UnsupportedMediaType",
    "ValidationFailed",
    "aggregate_router",
    "announced_bytes",
    "answer_once",
    "bearer",
    "caller_of",
    "command_router",
    "create_app",
    "error_response",
    "error_responses",
    "id_of",
    "idempotent",
    "issue_ticket",
    "json_answer",
    "json_body",
    "limit_body",
    "make_token",
    "read_bytes",
    "read_json",
    "read_model",
    "redeem_ticket",
    "request_id_of",
    "stream_cursor",
    "unit_of_work",
    "validation_details",
    "was_answered",
)
