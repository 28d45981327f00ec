"""The middleware of idempotent requests (contract, section 5); pure ASGI."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from relaybox.errors import RelayboxError
from relaybox.http._error_responses import REFUSAL
from relaybox.http._exchange import Caching, Exchange, is_watched
from relaybox.http._held import Stopped
from relaybox.http._requests import route_of
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
_OUTCOMES: Final[dict[type, str]] = {
    KeyInvalid: "malformed",
    KeyMissing: "missing",
    RequestInFlight: "in_flight",
    KeyReused: "mismatch",
    ResponseNotKept: "tombstone",
}


class IdempotencyMiddleware:
    """The same key again: the first answer comes back, and nothing runs twice.

    It reads the key, holds the answer back, has it committed, and then sends it. Who may replay is decided
    where more is known: by :func:`unit_of_work`, after the endpoint's other dependencies, or by a route of
    commands. Endpoints with neither are served in cache mode, if *idempotency_service_factory* and
    *principal* are given: the answer is kept after the endpoint has done its work; a crash in between runs it
    again.

    *methods* and *prefixes* say where cache mode applies, beside endpoints that are marked; no prefix means
    every path. A unit of work and a command ask for keys themselves, and ignore none. A request without a key
    passes unread; its response is held only where a unit of work asks for it. Where no key counts the
    answer has ``Idempotency-Status: ignored``. Figures go to *registry*.

    Raises:
        TypeError: *idempotency_service_factory* without *principal*, or the reverse: whose answer it is
            must be known before it is given to anybody.
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
        self._caching: Caching | None = None
        if idempotency_service_factory is not None and principal is not None:
            self._caching = Caching(factory=idempotency_service_factory, principal=principal)
        elif idempotency_service_factory is not None or principal is not None:
            raise TypeError("give both idempotency_service_factory= and principal=, or neither")
        self._methods = frozenset(method.upper() for method in methods)
        self._prefixes = tuple(prefix.rstrip("/") for prefix in prefixes)
        self._settings = settings or load_settings(IdempotencySettings)
        self._metrics = IdempotencyMetrics(registry or CollectorRegistry())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_watched(scope):
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, settings=self._settings, caching=self._caching)
        answer = exchange.answer
        try:
            await self._answer(exchange)
        except Stopped:
            # Its cause has been answered.
            return
        except (RelayboxError, HTTPException) as error:
            if answer.begun:
                raise
            await answer.refuse(error)
        finally:
            await answer.close()
            self._count(scope, answer.outcome)

    async def _answer(self, exchange: Exchange) -> None:
        answer = exchange.answer
        try:
            if exchange.keyed and self._covers(exchange.scope):
                await exchange.cache_ahead()
            await self._app(exchange.scope, exchange.receive, answer.send)
        except Exception:
            if answer.instead is None:
                raise
        match answer.instead:
            case Replay() as replay:
                self._metrics.record_replay(replay.stored.age_s)
                await answer.replay(replay)
            case IdempotencyError() as refusal:
                await answer.refuse(refusal)
            case None:
                return

    def _covers(self, scope: Scope) -> bool:
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        return scope["method"] in self._methods and (
            not self._prefixes or any(path == one or path.startswith(f"{one}/") for one in self._prefixes)
        )

    def _count(self, scope: Scope, outcome: str | None) -> None:
        refusal: object = scope.get(REFUSAL)
        ended = _OUTCOMES.get(type(refusal), outcome)
        if ended is not None:
            self._metrics.record_request(route=route_of(scope), outcome=ended)
