"""The composition of an API: middlewares in their order, error bodies, health, documentation."""

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
from relaybox.http._idempotency import IdempotencyMiddleware
from relaybox.http._openapi import Application
from relaybox.http._requests import RequestMiddleware
from relaybox.settings import HttpSettings, load_settings
from relaybox.telemetry import Checks, HttpMetrics, exposition, run_checks

__all__ = ("create_app",)

_log: Final = structlog.get_logger(__name__)

_CORS_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
#: Every request header that a route or a middleware of the library reads.
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
_CORS_ANSWER_HEADERS: Final = (
    "ETag",
    "Idempotency-Expires",
    "Idempotency-Status",
    "Idempotent-Replayed",
    "Location",
    "Retry-After",
    "X-Request-Id",
)
_CORS_FRESH_S: Final = 600


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
    """An application with everything of this package and no route of its own yet.

    Every answer carries ``X-Request-Id``; every error is one of our bodies, by *error_table*; bodies
    end at *body_bytes_max* and at the time limits of *settings*, by default those of ``HTTP_*``; browsers on
    *cors_origins* may call it, with headers of the application's own if *cors_headers* names them;
    ``/healthz``, ``/readyz`` (by *checks*), ``/metrics`` (of *registry*), ``/docs`` and ``/openapi.json``
    are served. Paths are taken as written: a missing or superfluous slash at the end is a 404, never a
    redirect, which would lose the token of some clients.

    Idempotency keys are honoured. Middlewares that the application adds run inside of all this, so that what
    they answer has it too, and around the :class:`IdempotencyMiddleware`, unless they are added before one of
    the application's own, which replaces it.

    Run it with ``log_config=None, access_log=False``: the log line per request is written here. A server has
    no time limit for a request's head unless it is run with :class:`relaybox.serving.HeadTimeoutProtocol`.
    """
    # Here, not at the first request: a wrong setting must stop the start.
    known = settings or load_settings(HttpSettings)
    app = Application(
        title=title,
        version=version,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        # Spans alone: the metrics are the library's own, and FastAPI's logs hold exceptions' messages (G71).
        telemetry={"metrics": False, "logs": False},
    )
    install_error_handlers(app, error_table)
    install_docs(app)
    _add_health_routes(app, checks, registry)
    app.add_middleware(IdempotencyMiddleware, registry=registry)
    # Each one added goes around those before it.
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
        expose_headers=_CORS_ANSWER_HEADERS,
        max_age=_CORS_FRESH_S,
    )


class _UnexpectedErrorMiddleware:
    """Answers what nobody expected, inside of CORS and request ids, so that browsers can read it.

    Starlette's own place for this is outside of both, and raises again, which logs everything twice.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        except ClientDisconnect:
            _log.info("http.client_gone")
        except Exception as error:
            if begun:
                # The status is out; only the server can still cut the connection, and it logs this.
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
