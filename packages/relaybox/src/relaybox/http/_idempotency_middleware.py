"""Handle idempotency keys in an ASGI middleware, see docs/explanation/idempotency.md."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from relaybox.errors import RelayboxError
from relaybox.http._cache_mode import CacheMode
from relaybox.http._error_responses import REFUSAL
from relaybox.http._idempotent_request import (
    IdempotentRequest,
    ResponseReplaced,
    State,
    has_idempotent_request,
)
from relaybox.http._requests import route_of
from relaybox.http._response_rules import Outcome
from relaybox.http._tokens import Principal
from relaybox.idempotency import (
    IdempotencyError,
    IdempotencyStore,
    KeyInvalid,
    KeyMissing,
    KeyReused,
    Replay,
    RequestInFlight,
    ResponseNotKept,
)
from relaybox.settings import IdempotencySettings, load_settings
from relaybox.telemetry import IdempotencyMetrics

__all__ = ("IdempotencyMiddleware",)

_METHODS: Final = ("POST", "PUT", "PATCH")
#: Outcome in the metrics, by class of the error that the response reports.
_REFUSALS: Final[dict[type, str]] = {
    KeyInvalid: "malformed",
    KeyMissing: "missing",
    RequestInFlight: "in_flight",
    KeyReused: "mismatch",
    ResponseNotKept: "tombstone",
}


class IdempotencyMiddleware:
    """Execute the request of each idempotency key once: a repeated request gets the stored response.

    The middleware reads the key from the headers, and holds back the response until the response and the
    effect of the request are committed. The endpoint determines which component claims the key:

    * If the endpoint has a unit of work, the dependency of :func:`unit_of_work` claims the key. It runs after
      the dependency that checks the sender, so the sender's rights are checked before a replay.
    * A route that executes commands claims the key itself, after the token was checked.
    * Any other endpoint is served in cache mode, if *idempotency_service_factory* and *principal* are given.
      The key is claimed before the endpoint is called, and the response is stored after the endpoint has
      returned. If the process dies in between, a retry executes the endpoint again.

    For a request without a key, the middleware does not read the body, and holds back the response only for
    a unit of work, or for an endpoint marked ``@idempotent(auto=True)``. If the endpoint does not use the
    key, a successful response has the header ``Idempotency-Status: ignored``.

    Args:
        idempotency_service_factory: Function that returns the store for the response to a request in cache
            mode.
        principal: Function that returns the sender of a request in cache mode. If the result is None or
            empty, the key is ignored and the endpoint is executed.
        methods: Methods that cache mode covers; endpoints marked :func:`idempotent` are always covered.
        prefixes: Path prefixes that cache mode covers; empty covers all paths.
        app: The application inside this middleware.
        settings: None reads ``IDEMPOTENCY_*`` from the environment.
        registry: Registry of the metrics; None for a new registry, whose metrics are not served.

    Raises:
        TypeError: Only one of *idempotency_service_factory* and *principal* is given; cache mode needs both.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        idempotency_service_factory: Callable[[Request], Awaitable[IdempotencyStore]] | None = None,
        principal: Callable[[Request], Awaitable[Principal | str | None]] | None = None,
        methods: Sequence[str] = _METHODS,
        prefixes: Sequence[str] = (),
        settings: IdempotencySettings | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._app = app
        self._cache_mode: CacheMode | None = None
        if idempotency_service_factory is not None and principal is not None:
            self._cache_mode = CacheMode(factory=idempotency_service_factory, principal=principal)
        elif idempotency_service_factory is not None or principal is not None:
            raise TypeError("idempotency_service_factory= and principal= need each other; give both or none")
        self._methods = frozenset(method.upper() for method in methods)
        self._prefixes = tuple(prefix.rstrip("/") for prefix in prefixes)
        self._settings = settings or load_settings(IdempotencySettings)
        self._metrics = IdempotencyMetrics(registry or CollectorRegistry())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or has_idempotent_request(scope):
            await self._app(scope, receive, send)
            return
        idempotent = IdempotentRequest(
            scope, receive, send, settings=self._settings, cache_mode=self._cache_mode
        )
        try:
            await self._respond(idempotent)
        except ResponseReplaced:
            # The error response was sent already.
            return
        except (RelayboxError, HTTPException) as error:
            if idempotent.state is State.SENT:
                raise
            await idempotent.refuse(error)
        finally:
            await idempotent.release()
            self._count(scope, idempotent.outcome)

    async def _respond(self, idempotent: IdempotentRequest) -> None:
        try:
            if self._cache_mode is not None and idempotent.key.is_present and self._covers(idempotent.scope):
                await self._claim_ahead(self._cache_mode, idempotent)
            await self._app(idempotent.scope, idempotent.key.receive, idempotent.send)
        except Exception:
            if idempotent.replacement is None:
                raise
        match idempotent.replacement:
            case Replay() as replay:
                self._metrics.record_replay(replay.stored.age_s)
                await idempotent.replay(replay)
            case IdempotencyError() as refusal:
                await idempotent.refuse(refusal)
            case None:
                return

    async def _claim_ahead(self, cache_mode: CacheMode, idempotent: IdempotentRequest) -> None:
        """Read the body and claim the key in cache mode, before the application gets the request.

        If the client disconnects before its whole body was received, the key is not claimed.

        Raises:
            BodyTooLarge: The body is larger than ``IDEMPOTENCY_BODY_BYTES_MAX``.
        """
        if await idempotent.key.read_ahead(self._settings.body_bytes_max):
            await cache_mode.claim_key(idempotent, Request(idempotent.scope))

    def _covers(self, scope: Scope) -> bool:
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        return scope["method"] in self._methods and (
            not self._prefixes or any(path == one or path.startswith(f"{one}/") for one in self._prefixes)
        )

    def _count(self, scope: Scope, outcome: Outcome | None) -> None:
        refusal: object = scope.get(REFUSAL)
        ended = _REFUSALS.get(type(refusal), outcome)
        if ended is not None:
            self._metrics.record_request(route=route_of(scope), outcome=ended)
