"""Correct FastAPI's OpenAPI document, so that it describes the library's responses."""

import re
import sys
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from relaybox_types.api import ErrorBody
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relaybox.errors import RelayboxError
from relaybox.http._errors import BadHeader, ValidationFailed
from relaybox.http._idempotency_middleware import IdempotencyMiddleware
from relaybox.http._keyed_routes import documents_keys
from relaybox.http._query import refuse_undeclared_query

__all__ = ("Application",)

_REF: Final = "#/components/schemas/{model}"
_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": (
        "idempotency key: a repeated request with the same key gets the stored first response; "
        "the header X-Idempotency-Key is accepted instead"
    ),
}
_CORRELATION: Final = {
    "name": "X-Correlation-Id",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "format": "uuid"},
    "description": "id of the chain of events that the command continues; by default the command's id",
}
#: Matches a description that :func:`relaybox.http.error_responses` wrote: a phrase and error codes.
_PHRASE_AND_CODES: Final = re.compile(r"(?P<phrase>[^:]+): (?P<codes>[A-Z0-9_]+(?:, [A-Z0-9_]+)*)")
#: FastAPI's models of its 422 response, which FastAPI documents for each route with a parameter.
_FASTAPI_ERRORS: Final = ("HTTPValidationError", "ValidationError")


class Application(FastAPI):
    """A FastAPI application with the library's error bodies in its OpenAPI document, and each model once."""

    #: Number of the library's outermost middlewares (request ids, CORS, unexpected errors, body limit). A
    #: middleware that is added later runs inside them.
    outer: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve *scope*; if the start fails with a RelayboxError, report only the message of the error.

        Starlette would report a traceback of 40 lines, in which the name of a missing setting is hard to see.
        """
        if scope["type"] != "lifespan":
            await super().__call__(scope, receive, send)
            return
        try:
            self.middleware_stack = self.middleware_stack or self.build_middleware_stack()
        except RelayboxError as error:
            # If an application raises before its first message, uvicorn assumes that the application has no
            # lifespan, and starts; each request would get 500.
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await super().__call__(scope, receive, _without_traceback(send))

    def build_middleware_stack(self) -> ASGIApp:
        """Build the middleware stack, and make all routes refuse undeclared query parameters."""
        refuse_undeclared_query(self.routes)
        return super().build_middleware_stack()

    def add_middleware(self, middleware_class: Any, *args: Any, **kwargs: Any) -> None:
        """Add a middleware around those added before, and inside the library's outermost middlewares.

        An :class:`IdempotencyMiddleware` replaces the IdempotencyMiddleware of :func:`create_app`.
        """
        if middleware_class is IdempotencyMiddleware:
            self.user_middleware = [one for one in self.user_middleware if one.cls is not middleware_class]
        super().add_middleware(middleware_class, *args, **kwargs)
        self.user_middleware.insert(self.outer, self.user_middleware.pop(0))

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, built at the first call."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
            for path, operation in _operations(document):
                _add_parameters(path, operation)
                _hoist_models(operation, schemas)
                _document_422(operation, schemas)
            for name in _FASTAPI_ERRORS:
                schemas.pop(name, None)
        assert self.openapi_schema is not None
        return self.openapi_schema


def _without_traceback(send: Send) -> Send:
    async def send_plainly(message: Message) -> None:
        error = sys.exception()
        if message["type"] == "lifespan.startup.failed" and isinstance(error, RelayboxError):
            message = {**message, "message": str(error)}
        await send(message)

    return send_plainly


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document.get("paths", {}).items():
        yield from ((path, operation) for operation in methods.values() if isinstance(operation, dict))


def _add_parameters(path: str, operation: dict[str, Any]) -> None:
    """Add the parameters that FastAPI does not know to *operation*, a route's entry in the OpenAPI document.

    These are ids that the route reads from its path itself, and the headers ``Idempotency-Key`` and
    ``X-Correlation-Id`` if the route reads them, which its documented error codes show.
    """
    named: list[dict[str, Any]] = operation.get("parameters", [])
    known = {(one["in"], one["name"].lower()) for one in named}
    unseen = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
        if ("path", name.lower()) not in known
    ]
    responses: dict[str, Any] = operation.get("responses", {})
    if documents_keys(responses) and ("header", "idempotency-key") not in known:
        unseen.append(_KEY)
    reads_correlation = BadHeader.error_code in responses.get("400", {}).get("description", "")
    if reads_correlation and ("header", "x-correlation-id") not in known:
        unseen.append(_CORRELATION)
    if unseen:
        operation["parameters"] = [*unseen, *named]


def _hoist_models(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schemas.update(content["schema"].pop("$defs", {}))


def _document_422(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Document the library's 422 response, because each operation refuses undeclared query parameters.

    If the application has documented the status 422, its content stays, and the description gets the code
    ``VALIDATION_ERROR``.
    """
    response: dict[str, Any] = operation.setdefault("responses", {}).setdefault("422", {})
    content: dict[str, Any] = response.setdefault("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    if schema.get("$ref", "").endswith("/HTTPValidationError"):
        content.clear()
        response["description"] = ""
    if not content:
        model = ErrorBody.model_json_schema(ref_template=_REF)
        for name, schema in {**model.pop("$defs"), "ErrorBody": model}.items():
            schemas.setdefault(name, schema)
        content["application/json"] = {"schema": {"$ref": _REF.format(model="ErrorBody")}}
    response["description"] = _with_validation_code(response.get("description") or HTTPStatus(422).phrase)


def _with_validation_code(description: str) -> str:
    codes = {ValidationFailed.error_code}
    if known := _PHRASE_AND_CODES.fullmatch(description):
        description, codes = known["phrase"], codes | {*known["codes"].split(", ")}
    return f"{description}: {', '.join(sorted(codes))}"
