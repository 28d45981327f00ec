"""Hold back the response to a request until the response and its effect are committed."""

import asyncio
from collections.abc import Awaitable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum, auto
from time import time
from typing import TYPE_CHECKING, Final, assert_never

import structlog
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from relaybox.http._error_responses import REFUSAL, response_to
from relaybox.http._errors import ResponseNotStorable
from relaybox.http._request_key import Policy, RequestKey
from relaybox.http._response_rules import (
    Outcome,
    final_outcome,
    http_date,
    outcome_headers,
    why_not_storable,
)
from relaybox.http._tokens import Principal
from relaybox.idempotency import (
    Claim,
    ClaimStore,
    IdempotencyError,
    Replay,
    ResponseParts,
    Ttl,
    replay_of,
    replayable_headers,
    ttl_seconds,
)
from relaybox.settings import IdempotencySettings

if TYPE_CHECKING:
    from relaybox.http._cache_mode import CacheMode

__all__ = (
    "IdempotentRequest",
    "ResponseReplaced",
    "State",
    "has_idempotent_request",
    "idempotent_request_of",
)

_log: Final = structlog.get_logger(__name__)
_SCOPE_KEY: Final = "relaybox.idempotent_request"
#: Maximum number of targets of a claim: wide rows take longer to delete.
_TARGETS_MAX: Final = 100


class State(Enum):
    """The state of an :class:`IdempotentRequest`."""

    #: Messages of the endpoint are passed to the server.
    PASS_THROUGH = auto()
    #: Cache mode: the response is held back until it is stored; the endpoint commits its effect itself.
    HELD_FOR_CACHE = auto()
    #: Unit of work: the response is held back until effect and response are committed in one transaction.
    HELD_FOR_UNIT = auto()
    #: A stored response or an error is sent instead of the endpoint's messages, which are dropped.
    REPLACED = auto()
    #: The head of the response was sent; later messages are passed to the server.
    SENT = auto()


#: Constants, because Python 3.11 takes 0.1 µs to read a member of an enum.
_INITIAL: Final = State.PASS_THROUGH
_PASSING: Final = (State.PASS_THROUGH, State.SENT)
_HELD: Final = (State.HELD_FOR_CACHE, State.HELD_FOR_UNIT)


class ResponseReplaced(Exception):
    """Raised by the endpoint's ``send`` after an error response was sent instead of the endpoint's response.

    ``__cause__`` is the reported error.
    """


class IdempotentRequest:
    """One request, whose response is held back until its effect is committed.

    ::

                 hold_for_cache ┌────────────────┐ response of 2xx or 3xx: keep, commit
               ┌───────────────►│ HELD_FOR_CACHE ├──────────────────────────────────────┐
        ┌──────┴───────┐◄───────┴────────────────┘ error response, or a unit claims      ▼
        │ PASS_THROUGH │                                                             ┌──────┐
        └┬─────┬───────┘◄───────┬────────────────┐ error response: roll back         │ SENT │
         │     └───────────────►│ HELD_FOR_UNIT  ├──────────────────────────────────►└──────┘
         │       hold_for_unit  └────────────────┘ response of 2xx or 3xx: keep, commit  ▲
         └───────────────────────────────────────────────────────────────────────────────┘
                    response without a claim or a unit of work

        any state but SENT ─ deciding, replace_response ─► REPLACED ─ replay, refuse ─► SENT

    "A unit claims": a unit of work or a command claims the key, instead of cache mode (:meth:`leave_cache`).
    "keep": store the response. Invariant: in the states HELD_FOR_CACHE and HELD_FOR_UNIT, no part of the
    response is sent before the store has committed or rolled back. Only methods of this class set the state.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        settings: IdempotencySettings,
        cache_mode: "CacheMode | None",
    ) -> None:
        self.scope = scope
        self.cache_mode = cache_mode
        self._settings = settings
        self._receive = receive
        self._send = send
        self.key = RequestKey(scope, receive, settings)
        self._state = _INITIAL
        #: The store that must commit before the response is sent; None in PASS_THROUGH.
        self._store: ClaimStore | None = None
        #: The claim under which the response is stored; None for a request without a valid key.
        self._claim: Claim | None = None
        #: The stored response or error that the middleware sends in REPLACED.
        self._replacement: Replay | IdempotencyError | None = None
        #: Unix time of the claim.
        self._claimed_at_s = 0.0
        self._head: Message | None = None
        self._body = bytearray()
        self._outcome = Outcome.IGNORED if self.key.is_present else None
        scope[_SCOPE_KEY] = self

    @property
    def state(self) -> State:
        """The state of the request; see the diagram above."""
        return self._state

    @property
    def outcome(self) -> Outcome | None:
        """How the request ended, or has been handled so far; None for a request without a key."""
        return self._outcome

    @property
    def replacement(self) -> Replay | IdempotencyError | None:
        """The stored response or error that replaces the endpoint's response; None if none replaces it."""
        return self._replacement

    async def claim(
        self,
        request: Request,
        principal: Principal | str,
        policy: Policy | None = None,
        *,
        namespace: str = "",
    ) -> Claim | None:
        """Create the claim on the key of *request*; None without a key, unless *policy* generates a key.

        Args:
            request: The request.
            principal: The sender; equal keys of different senders are different keys.
            policy: Policy of the endpoint; None for the default :class:`Policy`.
            namespace: Prefix of the claim's scope; keys in different namespaces are different keys.

        Raises:
            KeyInvalid: The request does not have exactly one valid key.
            KeyMissing: *policy* requires a key.
        """
        claim = await self.key.claim(request, principal, policy or Policy(), namespace=namespace)
        if claim is not None:
            self._outcome = Outcome.REFUSED
            # Read before the store reads its clock: a response is stored at least until this time + its ttl.
            self._claimed_at_s = time()
            self._claim = claim
        return claim

    async def leave_cache(self) -> None:
        """End cache mode for this request, because a unit of work or a command claims the key.

        Raises:
            RuntimeError: The request has a unit of work already.
        """
        if self._state is State.HELD_FOR_UNIT:
            path = self.scope["path"]
            raise RuntimeError(f"{path} depends on two units of work; one request is one transaction")
        await self.release()

    async def hold_for_unit(self, store: ClaimStore, claim: Claim | None) -> None:
        """Hold back the response until *store*, the transaction of the endpoint's effect, has committed.

        If *claim* is None, the request has no key: no key is claimed, and the response is not stored.

        Raises:
            RequestInFlight, KeyReused, ResponseNotKept: See :mod:`relaybox.idempotency`.
            Replay: A response is stored under the key.
        """
        self._store, self._state = store, State.HELD_FOR_UNIT
        if claim is not None:
            await self._claim_key(store, claim)

    async def hold_for_cache(self, store: ClaimStore, claim: Claim) -> None:
        """Hold back the response until *store* has stored it; raises as :meth:`hold_for_unit` does."""
        self._store, self._state = store, State.HELD_FOR_CACHE
        await self._claim_key(store, claim)

    async def _claim_key(self, store: ClaimStore, claim: Claim) -> None:
        # The claim is set after the store has claimed the key: if claiming fails, the response is not stored.
        self._claim = None
        stored = await store.claim(claim.key, scope=claim.scope)
        if stored is not None:
            raise replay_of(stored, claim)
        self._claim = claim

    def set_ttl(self, ttl: Ttl) -> None:
        """Set the time for which the response is stored, after the key was claimed with the default time."""
        if self._claim is not None:
            self._claim = replace(self._claim, ttl_s=ttl_seconds(ttl, self._settings))

    def add_targets(self, targets: Iterable[str]) -> None:
        """Store *targets* with the response, so that an erasure of one of them erases the response too.

        Raises:
            ValueError: The response would have more than 100 targets.
        """
        if self._claim is None:
            return
        known = tuple(dict.fromkeys((*self._claim.targets, *targets)))
        if len(known) > _TARGETS_MAX:
            raise ValueError(f"a response may have {_TARGETS_MAX} targets, not {len(known)}; pass fewer ids")
        self._claim = replace(self._claim, targets=known)

    @contextmanager
    def deciding(self) -> Generator[None]:
        """Respond with the Replay or IdempotencyError that the block raises, even if a handler catches it."""
        try:
            yield
        except (Replay, IdempotencyError) as replacement:
            self.replace_response(replacement)
            raise

    def replace_response(self, replacement: Replay | IdempotencyError) -> None:
        """Drop the endpoint's messages; the middleware sends *replacement* as the response instead."""
        self._replacement, self._state = replacement, State.REPLACED

    async def send(self, message: Message) -> None:
        """Hold back, drop or pass on *message*; the application gets this method as its ``send``."""
        if self._state in _PASSING:
            await self._forward(message)
            return
        match self._state:
            case State.HELD_FOR_CACHE | State.HELD_FOR_UNIT:
                await self._hold(message)
            case State.REPLACED:
                # The message is dropped; it is, for example, from the application's exception handlers.
                return
            case _:
                assert_never(self._state)

    async def replay(self, replay: Replay) -> None:
        """Release the store, and send the stored response of *replay* (G66)."""
        await self.release()
        self._outcome = Outcome.REPLAYED
        headers = {
            **replay.response.headers,
            "Idempotent-Replayed": "true",
            "Idempotency-Expires": http_date(int(replay.stored.expires_at.timestamp())),
        }
        response = Response(replay.response.body, replay.response.status, headers)
        await response(self.scope, self._receive, self._forward)

    async def refuse(self, error: Exception) -> None:
        """Roll back and release the store, and send the response to *error*."""
        await self.release()
        response = response_to(Request(self.scope), error)
        await response(self.scope, self._receive, self._forward)

    async def release(self) -> None:
        """Release the store, which rolls back its transaction if it was not committed."""
        store, self._store = self._store, None
        if self._state in _HELD:
            self._state = State.PASS_THROUGH
        if store is not None:
            await store.release()

    async def _hold(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                await self.release()
                await self._forward(message)
            else:
                self._head = message
        elif self._head is None:
            # Informational responses such as early hints (103), which precede the response.
            await self._send(message)
        else:
            await self._hold_body(self._head, message)

    async def _hold_body(self, head: Message, message: Message) -> None:
        self._body += message.get("body", b"")
        more = message.get("more_body", False)
        reason = why_not_storable(Headers(raw=head["headers"]), message, has_claim=self._claim is not None)
        if reason is not None:
            await self._refuse_response(head, ResponseNotStorable(self.scope["path"], reason))
        elif not more or len(self._body) > self._settings.body_bytes_max:
            await self._complete(head, bytes(self._body), more=more)

    async def _complete(self, head: Message, body: bytes, *, more: bool) -> None:
        try:
            await self._commit(head, body)
        except Exception as error:
            if self._state is State.HELD_FOR_UNIT:
                # Starlette assumes that the response has begun and would ignore the error, so send it here.
                await self.refuse(error)
                raise ResponseReplaced from error
            self._report_unrecorded(error)
        await self._forward(head)
        await self._forward({"type": "http.response.body", "body": body, "more_body": more})

    async def _commit(self, head: Message, body: bytes | None) -> None:
        """Store the response under the claim, if there is a claim, and commit the store."""
        assert self._store is not None, "a held response has a store"
        if self._claim is not None:
            headers = replayable_headers(head["headers"])
            response = ResponseParts(status=head["status"], headers=headers, body=body)
            await self._store.keep(self._claim, response)
        await _finish_despite_cancellation(self._store.commit())

    async def _refuse_response(self, head: Message, refused: ResponseNotStorable) -> None:
        if self._state is State.HELD_FOR_CACHE:
            # The effect is committed already: store that the request was executed, so that a retry is
            # refused.
            try:
                await self._commit(head, None)
            except Exception as error:  # noqa: BLE001 - the client gets the refusal, which names the cause
                self._report_unrecorded(error)
        await self.refuse(refused)
        raise ResponseReplaced from refused

    def _report_unrecorded(self, error: Exception) -> None:
        _log.warning("response not stored; a retry would execute the request again", reason=str(error))
        self._outcome = Outcome.UNRECORDED

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._state = State.SENT
            if self._outcome is not None:
                message = {**message, "headers": [*message.get("headers", ()), *self._own_headers(message)]}
        await self._send(message)

    def _own_headers(self, head: Message) -> Iterable[tuple[bytes, bytes]]:
        assert self._outcome is not None, "a request without a key has no outcome"
        claim, status, refusal = self._claim, head["status"], self.scope.get(REFUSAL)
        self._outcome = final_outcome(self._outcome, status, has_claim=claim is not None)
        expires_at_s = self._claimed_at_s + (0 if claim is None else claim.ttl_s)
        return outcome_headers(self._outcome, status, refusal=refusal, expires_at_s=expires_at_s)


def has_idempotent_request(scope: Scope) -> bool:
    """Return whether an outer IdempotencyMiddleware handles the request with this ASGI *scope*."""
    return _SCOPE_KEY in scope


def idempotent_request_of(request: Request) -> IdempotentRequest:
    """Return the :class:`IdempotentRequest` that the middleware created for *request*.

    Raises:
        RuntimeError: No :class:`IdempotencyMiddleware` is installed.
    """
    idempotent: IdempotentRequest | None = request.scope.get(_SCOPE_KEY)
    if idempotent is None:
        raise RuntimeError(
            f"{request.url.path} uses idempotency keys, but its application has no IdempotencyMiddleware; "
            "create the application with relaybox.http.create_app, or call "
            "app.add_middleware(IdempotencyMiddleware)"
        )
    return idempotent


async def _finish_despite_cancellation(commit: Awaitable[None]) -> None:
    """Await the end of *commit*, and then raise a cancellation that arrived during the wait (G64).

    If the cancellation reached *commit*, it would close the session during the COMMIT, whose outcome would
    then be unknown. The loop is needed because anyio repeats a cancellation until the task ends.
    """
    running = asyncio.ensure_future(commit)
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from running.exception()
    running.result()
