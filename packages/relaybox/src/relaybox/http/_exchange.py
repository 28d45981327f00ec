"""One request between the middleware and whoever decides about its key."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from email.utils import formatdate
from time import time
from typing import Any, Final

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from relaybox.errors import RelayboxError
from relaybox.http._answers import REFUSAL, error_response
from relaybox.http._errors import BodyTooLarge, StreamRefused
from relaybox.http._tokens import Principal
from relaybox.idempotency import (
    KEY_HEADERS,
    Answer,
    Claim,
    IdempotencyStore,
    KeyMissing,
    Replay,
    RequestInFlight,
    ResponseNotKept,
    Ttl,
    fingerprint_of,
    generate_key_from_request,
    kept_headers,
    parse_key,
    replay_of,
    result_of,
    scope_of,
    seconds_of,
)
from relaybox.settings import IdempotencySettings

__all__ = ("Caching", "Exchange", "Policy", "Stopped", "claim_of", "exchange_of")

_log: Final = structlog.get_logger(__name__)
_PLACE: Final = "relaybox.exchange"
#: Apart from the keys of units of work, who decide about a replay after more than the middleware knows (G68).
_CACHE: Final = "cache:"
_GENERATED: Final = "generated"


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What one endpoint wants of keys."""

    #: Refuse requests without a key.
    required: bool = False
    #: How long answers are kept; None: as long as the settings say.
    ttl: Ttl = None
    #: Make a key of the request itself where the client sends none.
    auto: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Caching:
    """Cache mode: where answers are kept that no unit of work keeps, and whose they are."""

    factory: Callable[[Request], Awaitable[IdempotencyStore]]
    principal: Callable[[Request], Awaitable[Principal | str | None]]


class Stopped(Exception):
    """Raised into an endpoint that streams after its stream was refused."""


class Exchange:
    """Reads the key and the body's digest; holds the answer back until what it speaks of is committed.

    Invariant: with a store nothing of an answer leaves before the store has committed, or has taken back
    what must not last.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        settings: IdempotencySettings,
        caching: Caching | None,
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._settings = settings
        self._caching = caching
        self._given = [value for name, value in scope["headers"] if name in KEY_HEADERS]
        self._digest = hashlib.sha256()
        self._whole = False
        self._ahead: list[Message] = []
        self._store: IdempotencyStore | None = None
        self._in_unit = False
        self._claim: Claim | None = None
        self._start: Message | None = None
        self._body = bytearray()
        self._begun = False
        #: How it ended, for the metrics; None while no key counts.
        self.outcome: str | None = "ignored" if self._given else None
        scope[_PLACE] = self

    @property
    def has_key(self) -> bool:
        """Whether the client sent one, well or badly formed."""
        return bool(self._given)

    @property
    def begun(self) -> bool:
        """Whether an answer has begun to leave."""
        return self._begun

    async def receive(self) -> Message:
        """The server's ``receive``, watched."""
        if self._ahead:
            return self._ahead.pop(0)
        message = await self._receive()
        if message["type"] == "http.request":
            self._digest.update(message.get("body", b""))
            self._whole = not message.get("more_body", False)
        return message

    async def read_ahead(self) -> None:
        """Read the body before the application does, which gets it afterwards.

        Raises:
            BodyTooLarge: it is larger than what is kept of an answer.
        """
        read: list[Message] = []
        taken_bytes = 0
        while not self._whole:
            message = await self.receive()
            read.append(message)
            if message["type"] != "http.request":
                break
            taken_bytes += len(message.get("body", b""))
            if taken_bytes > self._settings.body_bytes_max:
                raise BodyTooLarge(self._settings.body_bytes_max)
        self._ahead = read

    async def claim(
        self, request: Request, who: Principal | str, policy: Policy | None = None
    ) -> Claim | None:
        """*who*'s claim for this request; None for one without a key.

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
        if not self._whole:
            await request.body()
        fingerprint = _GENERATED
        if key is None:
            key = generate_key_from_request(*_named(self._scope), await self._canonical(request), scope)
        else:
            content_type = request.headers.get("content-type", "")
            where = (*_named(self._scope), self._scope["query_string"], content_type)
            fingerprint = fingerprint_of(*where, self._digest.digest())
        self.outcome = "refused"
        self._claim = Claim(
            key=key,
            scope=scope,
            fingerprint=fingerprint,
            ttl_s=seconds_of(policy.ttl, self._settings),
            body_bytes_max=self._settings.body_bytes_max,
        )
        return self._claim

    async def hold(self, store: IdempotencyStore, claim: Claim | None) -> None:
        """Keep the answer in *store* under *claim*, and let it leave after the store's commit.

        Raises:
            RequestInFlight: the first request under this claim has not ended.
            Replay: it has; this is its answer.
            KeyReused: it was another request.
            ResponseNotKept: its answer was too large.
        """
        self._store, self._claim = store, None
        if claim is None:
            return
        if not await store.try_lock(claim.key, scope=claim.scope):
            raise RequestInFlight
        stored = await store.find(claim.key, scope=claim.scope)
        if stored is not None:
            raise replay_of(stored, claim.fingerprint)
        self._claim = claim

    async def begin_unit(
        self, store: IdempotencyStore, request: Request, who: Principal | str, policy: Policy | None
    ) -> None:
        """A unit of work takes over: it decides about the key, and *store* commits it; see :meth:`hold`."""
        cached, self._store, self._in_unit = self._store, store, True
        if cached is not None:
            await cached.close()
        await self.hold(store, await self.claim(request, who, policy))

    async def cache(self, request: Request, policy: Policy | None = None) -> None:
        """Decide in cache mode, unless a unit of work has, or it was done already; see :meth:`hold`."""
        if self._in_unit:
            return
        if self._store is not None:
            if self._claim is not None and policy is not None:
                self._claim = replace(self._claim, ttl_s=seconds_of(policy.ttl, self._settings))
            return
        if self._caching is None:
            raise RuntimeError(
                f"{request.url.path} is @idempotent without a unit of work: give IdempotencyMiddleware "
                "idempotency_service_factory= and principal=, or take a unit of work"
            )
        who = await self._caching.principal(request)
        if who is None:
            return
        claim = await self.claim(request, who, policy)
        if claim is not None:
            store = await self._caching.factory(request)
            await self.hold(store, replace(claim, scope=_CACHE + claim.scope))

    async def send(self, message: Message) -> None:
        """The server's ``send``; holds the answer back while there is a store to commit first."""
        if self._store is None or self._begun:
            await self._forward(message)
        elif message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            await self._hold_back(message)
        else:
            await self._refuse_stream()

    async def replay(self, replay: Replay) -> None:
        """Give an answer again (G66)."""
        self.outcome = "replayed"
        headers = {
            **replay.answer.headers,
            "Idempotent-Replayed": "true",
            "Idempotency-Expires": formatdate(replay.stored.expires_at.timestamp(), usegmt=True),
        }
        response = Response(replay.answer.body, replay.answer.status, headers)
        await response(self._scope, self._receive, self._forward)

    async def refuse(self, error: RelayboxError) -> None:
        """Answer with *error* instead."""
        await error_response(Request(self._scope), error)(self._scope, self._receive, self._forward)

    async def close(self) -> None:
        """Give back what is held; what was not committed is taken back."""
        store, self._store = self._store, None
        if store is not None:
            await store.close()

    async def _hold_back(self, message: Message) -> None:
        assert self._start is not None, "a body before its start"
        self._body += message.get("body", b"")
        more = message.get("more_body", False)
        if more and not _announces_length(self._start["headers"]):
            await self._refuse_stream()
        elif not more or len(self._body) > self._settings.body_bytes_max:
            await self._complete(self._start, more=more)

    async def _complete(self, start: Message, *, more: bool) -> None:
        body = bytes(self._body)
        try:
            await self._settle(start, body)
        except RelayboxError as error:
            if self._in_unit:
                await self.refuse(error)
                raise Stopped from error
            # The endpoint has done its work elsewhere: only the record of it is missing.
            _log.warning("answer not kept, a retry would run again", reason=str(error))
            self.outcome = "unrecorded"
        await self._forward(start)
        await self._forward({"type": "http.response.body", "body": body, "more_body": more})

    async def _settle(self, start: Message, body: bytes | None) -> None:
        assert self._store is not None, "nothing to settle"
        if start["status"] >= 400:
            await self._store.close()
            return
        if self._claim is not None:
            answer = Answer(status=start["status"], headers=kept_headers(start["headers"]), body=body)
            result, ttl_s = result_of(answer, self._claim), self._claim.ttl_s
            key, scope = self._claim.key, self._claim.scope
            if not await self._store.cache_idempotency_result(key, result, ttl_s, scope=scope):
                # A command, which takes no lock, was first under this key.
                raise RequestInFlight
        await _to_its_end(self._store.commit())

    async def _refuse_stream(self) -> None:
        assert self._start is not None, "an answer before its start"
        refused = StreamRefused(self._scope["path"])
        if not self._in_unit:
            # What the endpoint did elsewhere stays done: its answer is a tombstone.
            await self._settle(self._start, None)
        await self.refuse(refused)
        raise Stopped from refused

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            own = self._own_headers(message["status"])
            message = {**message, "headers": [*message.get("headers", ()), *own]}
        await self._send(message)

    def _own_headers(self, status: int) -> Iterable[tuple[bytes, bytes]]:
        refusal = self._scope.get(REFUSAL)
        if isinstance(refusal, ResponseNotKept):
            yield b"idempotent-replayed", b"true"
            if refusal.location is not None:
                yield b"location", refusal.location.encode("latin-1")
        if status >= 400:
            return
        if self.outcome == "ignored":
            yield b"idempotency-status", b"ignored"
        if self.outcome == "refused" and self._claim is not None:
            self.outcome = "executed"
            yield b"idempotency-expires", formatdate(time() + self._claim.ttl_s, usegmt=True).encode()

    async def _canonical(self, request: Request) -> Any:
        """The body for a generated key; a form, which is read already, counts by its bytes."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_json = media_type == "application/json" or media_type.endswith("+json")
        return await request.body() if is_json else self._digest.hexdigest()


def exchange_of(request: Request) -> Exchange:
    """The exchange that *request* is part of.

    Raises:
        RuntimeError: no :class:`IdempotencyMiddleware` is installed.
    """
    exchange: Exchange | None = request.scope.get(_PLACE)
    if exchange is None:
        raise RuntimeError("install it first: app.add_middleware(IdempotencyMiddleware)")
    return exchange


async def claim_of(request: Request, who: Principal) -> Claim | None:
    """*who*'s claim for *request*, whose body has been read; None without a key, or without the middleware.

    Raises:
        KeyInvalid: the header is not one key.
    """
    exchange: Exchange | None = request.scope.get(_PLACE)
    return None if exchange is None else await exchange.claim(request, who)


async def _to_its_end(commit: Awaitable[None]) -> None:
    """Await *commit*; a request that is given up meanwhile waits for it, and knows how it ended (G64)."""
    running = asyncio.ensure_future(commit)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _scope_of(who: Principal | str) -> str:
    return scope_of(who.issuer, who.subject) if isinstance(who, Principal) else scope_of("", who)


def _named(scope: Scope) -> tuple[str, str]:
    return scope["method"], scope["path"]


def _announces_length(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == b"content-length" for name, _ in headers)
