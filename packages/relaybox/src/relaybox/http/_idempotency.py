"""The middleware of idempotent requests (contract, section 5); pure ASGI."""

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
#: Outcomes of refused requests in the metrics.
_REFUSALS: Final[dict[type, str]] = {
    KeyInvalid: "malformed",
    KeyMissing: "missing",
    RequestInFlight: "in_flight",
    KeyReused: "mismatch",
    ResponseNotKept: "tombstone",
}


class IdempotencyMiddleware:
    """Execute each idempotency key once: a repeated request gets the stored response.

    The middleware reads the key, holds the response until it is committed, and then sends it. The right to a
    replay is checked where more is known: by :func:`unit_of_work`, after the endpoint's other
    dependencies, or by a route of commands. Endpoints with neither are served in cache mode, if
    *idempotency_service_factory* and *principal* are given: the response is stored after the endpoint has
    done its work; after a crash in between, a retry executes the endpoint again.

    A request without a key passes unread; its response is held only for a unit of work. A response to a key
    that the endpoint does not use has the header ``Idempotency-Status: ignored``.

    Args:
        idempotency_service_factory: Returns the store of a request in cache mode.
        principal: Returns the sender of a request in cache mode; None if unknown.
        methods: Methods that cache mode covers; endpoints marked :func:`idempotent` are always covered.
        prefixes: Path prefixes that cache mode covers; empty covers all paths.
        settings: Read from ``IDEMPOTENCY_*`` if left out.
        registry: Registry of the metrics.

    Raises:
        TypeError: *idempotency_service_factory* without *principal*, or the reverse: a response is stored
            for one principal.
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
            raise TypeError("give both idempotency_service_factory= and principal=, or neither")
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
            # The response to its cause was sent.
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
        """Claim the key in cache mode before the application sees the request.

        Raises:
            BodyTooLarge: The body, which is compared, is larger than the largest stored response.
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
