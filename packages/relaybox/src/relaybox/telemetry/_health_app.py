"""Serve ``/healthz``, ``/readyz`` and ``/metrics`` in processes that serve no other HTTP requests."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeAlias

import structlog
from prometheus_client import CollectorRegistry
from pydantic_core import to_json

from relaybox.telemetry._address import AddressUnusable, open_listener
from relaybox.telemetry._health import Checks, run_checks
from relaybox.telemetry._metrics import exposition

__all__ = ("HealthAddressUnusable", "health_app", "serve_health")

_log: Final = structlog.get_logger(__name__)

_Scope: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_App: TypeAlias = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

_JSON: Final = b"application/json"
_TEXT: Final = b"text/plain; version=0.0.4; charset=utf-8"
_STOP_S_MAX: Final = 1
_HEAD_TIMEOUT_S: Final = 15.0


class HealthAddressUnusable(AddressUnusable):
    """Raised when ``HEALTH_HOST`` and ``HEALTH_PORT`` cannot be opened."""

    error_code = "HEALTH_ADDRESS_UNUSABLE"
    what = "health"
    settings = "HEALTH"


def health_app(checks: Checks, registry: CollectorRegistry) -> _App:
    """Create an ASGI application with three pages.

    ``/healthz``: 200 while the event loop runs. ``/readyz``: the results of *checks* as JSON, 503 if a check
    failed, otherwise 200. ``/metrics``: *registry* in Prometheus' format.
    """

    async def app(scope: _Scope, _receive: _Receive, send: _Send) -> None:
        status, media_type, body = await _page(scope, checks, registry)
        headers = [
            (b"content-type", media_type),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app


async def _page(scope: _Scope, checks: Checks, registry: CollectorRegistry) -> tuple[int, bytes, bytes]:
    if scope["method"] not in ("GET", "HEAD"):
        return (
            405,
            _JSON,
            to_json(
                {"error_code": "METHOD_NOT_ALLOWED", "message": "Only GET and HEAD are allowed; send GET"}
            ),
        )
    match scope["path"]:
        case "/healthz":
            return 200, _JSON, to_json({"status": "ok"})
        case "/readyz":
            report = await run_checks(checks)
            return report.http_status, _JSON, to_json(report.body())
        case "/metrics":
            return 200, _TEXT, await asyncio.to_thread(exposition, registry)
        case _:
            return (
                404,
                _JSON,
                to_json(
                    {
                        "error_code": "NOT_FOUND",
                        "message": "There is no such page; see /healthz, /readyz and /metrics",
                    }
                ),
            )


@asynccontextmanager
async def serve_health(
    app: _App, *, host: str, port: int, head_timeout_s: float = _HEAD_TIMEOUT_S
) -> AsyncGenerator[int]:
    """Serve *app* during an ``async with`` block, and yield the port.

    The server installs no signal handlers: the caller handles signals, and the end of the block stops the
    server.

    Args:
        app: The application, see :func:`health_app`.
        host: Name or address of this machine.
        port: 0 for a free port that the operating system chooses.
        head_timeout_s: Seconds after which a connection without a complete request head is closed.

    Raises:
        HealthAddressUnusable: The address cannot be opened.
    """
    import uvicorn

    from relaybox.serving import HeadTimeoutProtocol

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Generator[None]:
            yield

    class Protocol(HeadTimeoutProtocol):
        pass

    # Without a time limit, 64 connections that send nothing would reach limit_concurrency and block all
    # probes.
    Protocol.head_timeout_s = head_timeout_s
    listener = open_listener(host, port, backlog=64, error_class=HealthAddressUnusable)
    config = uvicorn.Config(
        app,
        http=Protocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        limit_concurrency=64,
        timeout_graceful_shutdown=_STOP_S_MAX,
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="health")
    bound: int = listener.getsockname()[1]
    _log.info("health pages served", host=host, port=bound)
    try:
        yield bound
    finally:
        server.should_exit = True
        await serving
        listener.close()
