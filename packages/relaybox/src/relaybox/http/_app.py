"""Create an application with the library's middlewares, error bodies, health routes and documentation."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from prometheus_client import CollectorRegistry
from pydantic_core import to_json
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relaybox.http._body import BODY_BYTES_MAX, BodyLimitMiddleware
from relaybox.http._docs import add_plain_route, install_docs
from relaybox.http._error_responses import ERROR_TABLE, ErrorTable, install_error_handlers, internal_error
from relaybox.http._idempotency_middleware import IdempotencyMiddleware
from relaybox.http._openapi import Application
from relaybox.http._requests import RequestMiddleware
from relaybox.settings import HttpSettings, load_settings
from relaybox.telemetry import Checks, HttpMetrics, exposition, run_checks

__all__ = ("create_app",)

_log: Final = structlog.get_logger(__name__)

_CORS_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
#: All request headers that routes and middlewares of the library read.
_CORS_REQUEST_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "Last-Event-ID",
    "traceparent",
    "X-Correlation-Id",
    "X-Idempotency-Key",
    "X-Request-Id",
)
_CORS_RESPONSE_HEADERS: Final = (
    "ETag",
    "Idempotency-Expires",
    "Idempotency-Status",
    "Idempotent-Replayed",
    "Location",
    "Retry-After",
    "X-Request-Id",
)
_CORS_MAX_AGE_S: Final = 600


def create_app(
    *,
    title: str,
    version: str,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[Any]],
    checks: Checks,
    registry: CollectorRegistry,
    cors_origins: Sequence[str] = (),
    cors_headers: Sequence[str] = (),
    error_table: ErrorTable = ERROR_TABLE,
    body_bytes_max: int = BODY_BYTES_MAX,
    settings: HttpSettings | None = None,
) -> FastAPI:
    """Create an application with all middlewares of this package, and without routes of a domain.

    The application serves ``/healthz``, ``/readyz``, ``/metrics``, ``/docs`` and ``/openapi.json``. Each
    response has the header ``X-Request-Id``, and each error response the body described in
    docs/reference/http.md. A path with a missing or superfluous slash at its end gets 404 and no redirect,
    because some clients do not send their token to the target of a redirect.

    The application has an :class:`IdempotencyMiddleware`. A middleware that is added later runs around the
    IdempotencyMiddleware and inside the library's other middlewares, which add the request id and the headers
    of CORS to its responses. To run a middleware inside the IdempotencyMiddleware, add the middleware and
    then another IdempotencyMiddleware, which replaces the first.

    Run uvicorn with ``log_config=None, access_log=False``, because the application writes a log line for each
    request. Run it with ``http=relaybox.serving.HeadTimeoutProtocol``, because without this class a client
    may take any time to send the head of a request.

    Args:
        title: Title of the OpenAPI document.
        version: Version in the OpenAPI document.
        lifespan: Context manager that is entered at the start and left at the end of the application, such as
            ``Backbone.lifespan``.
        checks: Checks that ``/readyz`` runs and reports.
        registry: Registry whose metrics ``/metrics`` returns.
        cors_origins: Origins of web pages that may call the application (CORS).
        cors_headers: Request headers that these pages may send, beside those that the library reads.
        error_table: Responses by class of error; applications extend :data:`ERROR_TABLE`.
        body_bytes_max: Maximum size of a request's body in bytes, unless the route sets another limit. It
            also applies to the library's routes.
        settings: Time limits of bodies; None reads ``HTTP_*`` from the environment.
    """
    # Settings are read here, so that a wrong setting fails the start and not the first request.
    known = settings or load_settings(HttpSettings)
    app = Application(
        title=title,
        version=version,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        # FastAPI creates spans only: the library has its own metrics, and FastAPI's logs contain the messages
        # of exceptions, which may be private (G71).
        telemetry={"metrics": False, "logs": False},
    )
    install_error_handlers(app, error_table)
    install_docs(app)
    _add_health_routes(app, checks, registry)
    app.add_middleware(IdempotencyMiddleware, registry=registry)
    # Each middleware runs around those that were added before.
    app.add_middleware(BodyLimitMiddleware, limit_bytes=body_bytes_max, settings=known)
    app.add_middleware(_UnexpectedErrorMiddleware)
    if cors_origins:
        _add_cors(app, cors_origins, cors_headers)
    app.add_middleware(RequestMiddleware, metrics=HttpMetrics(registry))
    app.outer = len(app.user_middleware) - 1
    return app


def _add_cors(app: FastAPI, origins: Sequence[str], headers: Sequence[str]) -> None:
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=_CORS_METHODS,
        allow_headers=(*_CORS_REQUEST_HEADERS, *headers),
        expose_headers=_CORS_RESPONSE_HEADERS,
        max_age=_CORS_MAX_AGE_S,
    )


class _UnexpectedErrorMiddleware:
    """Respond with 500 to unexpected exceptions.

    This middleware runs inside the middlewares for CORS and request ids, which add their headers to the
    response. So a web page can read the response, and the response has a request id. Starlette's own handler
    runs outside of both, and raises the exception again after its response, so that the server would log the
    exception a second time.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def send_noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        except ClientDisconnect:
            _log.info("http.client_disconnected")
        except Exception as error:
            if has_begun:
                # The status was sent already. The server closes the connection and logs the exception.
                raise
            await internal_error(Request(scope), error)(scope, receive, send)


def _add_health_routes(app: FastAPI, checks: Checks, registry: CollectorRegistry) -> None:
    async def healthz() -> Response:
        return _json(200, {"status": "ok"})

    async def readyz() -> Response:
        report = await run_checks(checks)
        return _json(report.http_status, report.body())

    def metrics() -> Response:
        return Response(exposition(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    add_plain_route(app, "/healthz", healthz)
    add_plain_route(app, "/readyz", readyz)
    add_plain_route(app, "/metrics", metrics)


def _json(status: int, body: object) -> Response:
    return Response(to_json(body), status, {"Cache-Control": "no-store"}, media_type="application/json")
