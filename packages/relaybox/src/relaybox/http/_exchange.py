"""One request between the middleware and whoever decides about its key."""

import hashlib
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from time import time
from typing import Any, Final

from starlette.datastructures import Headers, UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relaybox.http._held import HeldAnswer
from relaybox.http._tokens import Principal
from relaybox.http._watched import WatchedBody
from relaybox.idempotency import (
    KEY_HEADERS,
    Claim,
    IdempotencyError,
    IdempotencyStore,
    KeyMissing,
    Replay,
    Ttl,
    fingerprint_of,
    generate_key_from_request,
    parse_key,
    replay_of,
    scope_of,
    sorted_query,
    stored_key,
    ttl_seconds,
)
from relaybox.settings import IdempotencySettings

__all__ = ("Caching", "Exchange", "Policy", "claim_of", "exchange_of", "is_watched", "leave_to_middleware")

_PLACE: Final = "relaybox.exchange"
#: Apart from the keys of units of work, who decide about a replay after more than the middleware knows (G68).
_CACHE: Final = "cache:"
#: A generated key is the request's own digest: nothing else can be under it.
_GENERATED: Final = "generated"
#: Of a file in a form, read at once.
_CHUNK_BYTES: Final = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What one endpoint wants of keys."""

    #: Refuse requests without a key.
    required: bool = False
    #: How long answers are kept; None: as long as the settings say.
    ttl: Ttl = None
    #: Make a key of the request itself where the client sends none.
    auto: bool = False
    #: Keep of request and answer only that they were.
    secret: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Caching:
    """Cache mode: where answers are kept that no unit of work keeps, and whose they are."""

    factory: Callable[[Request], Awaitable[IdempotencyStore]]
    principal: Callable[[Request], Awaitable[Principal | str | None]]


class Exchange:
    """Knows the client's key, if there is one; finds out whether the key was answered already.

    The body of a request with a key is watched as it goes by.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        settings: IdempotencySettings,
        caching: Caching | None,
    ) -> None:
        self.scope = scope
        self._settings = settings
        self._caching = caching
        self._given = [value for name, value in scope["headers"] if name in KEY_HEADERS]
        self.answer = HeldAnswer(scope, receive, send, settings.body_bytes_max)
        #: What the application is to receive by: the server's ``receive``, watched if there is a key.
        self.receive = receive
        if self._given:
            self._body = WatchedBody(receive, is_json=_is_json(Headers(scope=scope)))
            self.receive = self._body.receive
            self.answer.outcome = "ignored"
        scope[_PLACE] = self

    @property
    def keyed(self) -> bool:
        """Whether the client sent a key, valid or not."""
        return bool(self._given)

    async def read_body(self, request: Request) -> None:
        """Wait for the whole body, which can be read afterwards unless it was consumed."""
        if self.keyed and self._body.whole:
            return
        try:
            await request.body()
        except RuntimeError:
            # Consumed, and so received, before. With a key, all of it must have been watched.
            if self.keyed:
                raise

    async def claim(
        self, request: Request, who: Principal | str, policy: Policy | None = None, *, space: str = ""
    ) -> Claim | None:
        """*who*'s claim for this request, in a *space* of keys; None for one without a key.

        Raises:
            KeyInvalid: the header is not one key.
            KeyMissing: *policy* wants one.
        """
        policy = policy or Policy()
        key, scope = parse_key(self._given), _scope_of(who)
        if key is None and not policy.auto:
            if policy.required:
                raise KeyMissing
            return None
        await self.read_body(request)
        ttl_s = ttl_seconds(policy.ttl, self._settings)
        if key is None:
            key, fingerprint, by_bytes = await _generated(request, scope), _GENERATED, None
        else:
            fingerprint, by_bytes = await self._fingerprints(request, secret=policy.secret)
        self.answer.outcome = "refused"
        # Before the store's own clock is asked: it is remembered at least until then.
        self.answer.expires_at_s = time() + ttl_s
        scope = space + scope
        self.answer.claim = Claim(
            key=key,
            scope=scope,
            stored_key=stored_key(scope, key, self._settings.secret),
            fingerprint=fingerprint,
            fingerprint_by_bytes=by_bytes,
            ttl_s=ttl_s,
            body_bytes_max=self._settings.body_bytes_max,
            secret=policy.secret,
        )
        return self.answer.claim

    async def leave_cache(self, request: Request) -> None:
        """Somebody who knows more takes over from cache mode: a unit of work, or a command.

        Raises:
            RuntimeError: the request has a unit of work already.
        """
        if self.answer.in_unit:
            raise RuntimeError(
                f"{request.url.path} asks for two units of work; one request is one transaction"
            )
        await self.answer.close()

    async def begin_unit(self, store: IdempotencyStore, claim: Claim | None) -> None:
        """A unit of work decides about *claim*, and *store* commits it.

        Raises:
            RequestInFlight, KeyReused, ResponseNotKept: as their docstrings say.
            Replay: the key was answered already.
        """
        self.answer.store, self.answer.in_unit = store, True
        if claim is not None:
            await self._decide(store, claim)

    async def cache_ahead(self) -> None:
        """Decide in cache mode before the application sees the request, which has a key; see :meth:`cache`.

        Raises:
            BodyTooLarge: the body, which is compared, is larger than what is kept of an answer.
        """
        if self._caching is not None and await self._body.read_ahead(self._settings.body_bytes_max):
            await self.cache(Request(self.scope))

    async def cache(self, request: Request, policy: Policy | None = None) -> None:
        """Decide in cache mode, unless a unit of work has, or it was done already.

        Raises:
            RuntimeError: there is nowhere to keep the answer, or it is a secret: what is decided ahead of the
                endpoint knows nothing of it.
            KeyInvalid, KeyMissing, RequestInFlight, KeyReused, ResponseNotKept: as their docstrings say.
            Replay: the key was answered already.
        """
        if self.answer.in_unit:
            return
        if policy is not None and policy.secret:
            raise RuntimeError(f"{request.url.path} is marked secret, for which it needs a unit of work")
        if self.answer.store is not None:
            if self.answer.claim is not None and policy is not None:
                ttl_s = ttl_seconds(policy.ttl, self._settings)
                self.answer.claim = replace(self.answer.claim, ttl_s=ttl_s)
            return
        if self._caching is None:
            raise RuntimeError(
                f"{request.url.path} is @idempotent without a unit of work: give IdempotencyMiddleware "
                "idempotency_service_factory= and principal=, or take a unit of work"
            )
        who = await self._caching.principal(request)
        # Nobody in particular, or an empty name: their answers would be everybody's.
        if not who:
            return
        with self.deciding():
            claim = await self.claim(request, who, policy, space=_CACHE)
            if claim is not None:
                self.answer.store = await self._caching.factory(request)
                await self._decide(self.answer.store, claim)

    @contextmanager
    def deciding(self) -> Generator[None]:
        """Whatever the key is answered with inside, the middleware answers, whoever catches it on the way."""
        try:
            yield
        except (Replay, IdempotencyError) as instead:
            self.answer.instead = instead
            raise

    async def _decide(self, store: IdempotencyStore, claim: Claim) -> None:
        # Whatever is refused from here on is not kept.
        self.answer.claim = None
        stored = await store.claim(claim.key, scope=claim.scope)
        if stored is not None:
            raise replay_of(stored, claim)
        self.answer.claim = claim

    async def _fingerprints(self, request: Request, *, secret: bool) -> tuple[str, Callable[[], str] | None]:
        """Return the request's fingerprint and, if that is by value, a function for the one by bytes."""
        content_type = request.headers.get("content-type", "")
        where = (self.scope["method"], self.scope["path"], self.scope["query_string"], content_type)
        # A short secret in the body could be found by trying which one has this digest.
        by_bytes = partial(fingerprint_of, *where, b"" if secret else self._body.digest())
        by_value = None if secret else await self._body.digest_by_value()
        if by_value is None:
            return by_bytes(), None
        return fingerprint_of(*where, by_value, by_value=True), by_bytes


def is_watched(scope: Scope) -> bool:
    """Whether a middleware further out has this request."""
    return _PLACE in scope


def exchange_of(request: Request) -> Exchange:
    """The exchange that *request* is part of.

    Raises:
        RuntimeError: no :class:`IdempotencyMiddleware` is installed.
    """
    exchange: Exchange | None = request.scope.get(_PLACE)
    if exchange is None:
        raise RuntimeError(
            f"{request.url.path} honours idempotency keys, which its application does not: make it by "
            "relaybox.http.create_app, or call app.add_middleware(IdempotencyMiddleware)"
        )
    return exchange


async def claim_of(request: Request, who: Principal) -> Claim | None:
    """*who*'s claim for *request*, whose body has been read; None without a key.

    Raises:
        KeyInvalid: the header is not one key.
        RuntimeError: no :class:`IdempotencyMiddleware` is installed.
    """
    exchange = exchange_of(request)
    await exchange.leave_cache(request)
    return await exchange.claim(request, who) if exchange.keyed else None


def leave_to_middleware(request: Request, instead: Replay | IdempotencyError) -> Response:
    """Have the middleware answer *request* with *instead*, whatever becomes of the response returned here.

    For endpoints, which can return: raising through the framework takes longer than all else about a replay.
    """
    exchange_of(request).answer.instead = instead
    return Response()


async def _generated(request: Request, scope: str) -> str:
    """A key made of the request; JSON counts by its content, another body by its bytes or as a form."""
    body: Any = await request.body() if _is_json(request.headers) else await _digest_of(request)
    query = sorted_query(request.scope["query_string"])
    path = f"{request.scope['path']}?{query}" if query else request.scope["path"]
    return generate_key_from_request(request.method, path, body, scope)


def _is_json(headers: Headers) -> bool:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


async def _digest_of(request: Request) -> Any:
    try:
        return hashlib.sha256(await request.body()).hexdigest()
    except RuntimeError:
        # The framework has read it as a form, which it keeps.
        form = await request.form()
    return [(name, await _digest_of_field(value)) for name, value in form.multi_items()]


async def _digest_of_field(value: UploadFile | str) -> str:
    if isinstance(value, str):
        return value
    digest = hashlib.sha256()
    await value.seek(0)
    while chunk := await value.read(_CHUNK_BYTES):
        digest.update(chunk)
    await value.seek(0)
    return digest.hexdigest()


def _scope_of(who: Principal | str) -> str:
    if isinstance(who, Principal):
        return scope_of(who.issuer, who.subject)
    # Not everything that can be written as text names somebody, and nobody's answers would be everybody's.
    if not isinstance(who, str) or not who:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise RuntimeError(
            f"a principal is a relaybox.http.Principal or a text that is not empty, no {type(who).__name__}; "
            "refuse whoever is not known"
        )
    return scope_of("", who)
