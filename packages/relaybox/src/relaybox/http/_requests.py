"""Every request: its id, its place in a trace, its line in the log, its figures."""

import re
import time
from secrets import token_hex
from typing import Any, Final

import structlog
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relaybox.telemetry import HttpMetrics, continue_trace

__all__ = ("RequestMiddleware", "request_id_of", "route_of")

_log: Final = structlog.get_logger(__name__)
#: What may stand in a log and a header as it came; everything else is replaced.
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
#: Probes come every few seconds and say nothing as long as they are well.
_PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
#: The client went away before its answer; nginx' status for it, seen in logs and metrics only.
_CLIENT_GONE: Final = 499


class RequestMiddleware:
    """Gives each request an id and tells about it once, when its answer has ended.

    ``X-Request-Id`` is taken from the client when it has a safe form (letters, digits, ``.``, ``_``,
    ``:``, ``-``, at most 128), else made anew; it is on every answer and every log line. The line
    holds the route's template, never the path or the query, so that no id or token is logged.
    """

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _accepted(headers.get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        traceparent = headers.get("traceparent")
        former = structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            if traceparent is None:
                await self._answer(scope, receive, send, request_id)
            else:
                with continue_trace(traceparent):
                    await self._answer(scope, receive, send, request_id)
        finally:
            structlog.contextvars.reset_contextvars(**former)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        status = _CLIENT_GONE
        started_s = time.perf_counter()

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        finally:
            self._tell(scope, status, time.perf_counter() - started_s)

    def _tell(self, scope: Scope, status: int, duration_s: float) -> None:
        route, method = route_of(scope), scope["method"]
        self._metrics.record_response(route=route, method=method, status=status, duration_s=duration_s)
        level = _log.debug if route in _PROBES and status < 500 else _log.info
        level("http.request", method=method, route=route, status=status, ms=round(duration_s * 1000, 3))


def request_id_of(request: Request) -> str | None:
    """The id of *request*; None when no :class:`RequestMiddleware` is installed."""
    state: dict[str, Any] = request.scope.get("state", {})
    return state.get("request_id")


def route_of(scope: Scope) -> str:
    """The template of the route that took the request (``/a/{id}``), ``unmatched`` for none."""
    # Since FastAPI 0.140 or so an included router keeps its routes without the prefix and puts the
    # whole template here; before, the route itself had it. A test pins both.
    context = scope.get("fastapi", {}).get("effective_route_context")
    template = getattr(context if context is not None else scope.get("route"), "path_format", None)
    return "unmatched" if template is None else template


def _accepted(offered: str | None) -> str:
    if offered is not None and _SAFE_ID.fullmatch(offered):
        return offered
    # 0.5 µs; a UUID takes 2.1.
    return token_hex(16)
