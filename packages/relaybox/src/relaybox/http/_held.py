"""The answer's side of an exchange: held back until what it speaks of is committed."""

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import replace
from email.utils import formatdate
from functools import lru_cache
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from relaybox.errors import RelayboxError
from relaybox.http._error_responses import REFUSAL, error_response, framework_response, internal_error
from relaybox.http._errors import ResponseNotStorable
from relaybox.idempotency import (
    Claim,
    IdempotencyError,
    IdempotencyStore,
    Replay,
    RequestInFlight,
    ResponseNotKept,
    ResponseParts,
    replayable_headers,
    stored_result,
)

__all__ = ("HeldAnswer", "Stopped")

_log: Final = structlog.get_logger(__name__)
#: A claim with more would be a wide row, which is dear to remove.
_TARGETS_MAX: Final = 100


class Stopped(Exception):
    """Raised into an endpoint whose own answer was replaced; its cause is what was answered instead."""


class HeldAnswer:
    """Stands in for the server's ``send``.

    Invariant: while there is a store, nothing of an answer leaves before the store has committed, or has
    taken back what must not last.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, body_bytes_max: int) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._body_bytes_max = body_bytes_max
        self._start: Message | None = None
        self._body = bytearray()
        #: What commits before the answer leaves; None: the answer speaks of nothing that could be taken back.
        self.store: IdempotencyStore | None = None
        #: The store's transaction is that of the effect.
        self.in_unit = False
        #: What the key is answered with instead of the endpoint's answer.
        self.instead: Replay | IdempotencyError | None = None
        #: Under what the answer is kept.
        self.claim: Claim | None = None
        #: Until when the key is remembered if the answer is kept, in seconds since 1970.
        self.expires_at_s = 0.0
        #: Whether anything has left.
        self.begun = False
        #: How the request ended, for the metrics; None while no key counts.
        self.outcome: str | None = None

    async def send(self, message: Message) -> None:
        """Hold *message* back while there is something to commit first, else let it leave."""
        if self.instead is not None:
            # Made of it by somebody on its way here, such as a handler of every exception.
            return
        if self.store is None or self.begun:
            await self._forward(message)
        elif message["type"] == "http.response.start" and message["status"] >= 400:
            await self.close()
            await self._forward(message)
        elif message["type"] == "http.response.start":
            self._start = message
        elif self._start is None:
            # Early hints and the like, which are no part of the answer.
            await self._send(message)
        else:
            await self._take(self._start, message)

    def note_targets(self, targets: Iterable[str]) -> None:
        """The answer is about *targets* too.

        Raises:
            ValueError: it is about more than 100.
        """
        if self.claim is None:
            return
        known = tuple(dict.fromkeys((*self.claim.targets, *targets)))
        if len(known) > _TARGETS_MAX:
            raise ValueError(f"an answer is about {_TARGETS_MAX} things at the most, not {len(known)}")
        self.claim = replace(self.claim, targets=known)

    async def replay(self, replay: Replay) -> None:
        """Give an earlier answer again (G66), after everything held is given back."""
        await self.close()
        self.outcome = "replayed"
        headers = {
            **replay.response.headers,
            "Idempotent-Replayed": "true",
            "Idempotency-Expires": _http_date(int(replay.stored.expires_at.timestamp())),
        }
        response = Response(replay.response.body, replay.response.status, headers)
        await response(self._scope, self._receive, self._forward)

    async def refuse(self, error: Exception) -> None:
        """Answer with *error* instead, after everything held is taken back."""
        await self.close()
        response = _response_to(Request(self._scope), error)
        await response(self._scope, self._receive, self._forward)

    async def close(self) -> None:
        """Give back what is held; what was not committed is taken back."""
        store, self.store = self.store, None
        if store is not None:
            await store.close()

    async def _take(self, start: Message, message: Message) -> None:
        self._body += message.get("body", b"")
        more = message.get("more_body", False)
        if unkeepable := _why_unkeepable(
            Headers(raw=start["headers"]), message, keyed=self.claim is not None
        ):
            await self._refuse(start, ResponseNotStorable(self._scope["path"], unkeepable))
        elif not more or len(self._body) > self._body_bytes_max:
            await self._complete(start, bytes(self._body), more=more)

    async def _complete(self, start: Message, body: bytes, *, more: bool) -> None:
        try:
            await self._settle(start, body)
        except Exception as error:
            if self.in_unit:
                # Raised into the framework, which believes that the answer has begun, it would be lost.
                await self.refuse(error)
                raise Stopped from error
            self._not_kept(error)
        await self._forward(start)
        await self._forward({"type": "http.response.body", "body": body, "more_body": more})

    async def _settle(self, start: Message, body: bytes | None) -> None:
        """Commit what the answer speaks of, and the answer with it."""
        assert self.store is not None, "nothing to settle"
        if self.claim is not None:
            answer = ResponseParts(
                status=start["status"], headers=replayable_headers(start["headers"]), body=body
            )
            key, scope, ttl_s = self.claim.key, self.claim.scope, self.claim.ttl_s
            result = stored_result(answer, self.claim)
            if not await self.store.cache_idempotency_result(key, result, ttl_s, scope=scope):
                # A command, which takes no lock, was first under this key.
                raise RequestInFlight
        await _to_its_end(self.store.commit())

    async def _refuse(self, start: Message, refused: ResponseNotStorable) -> None:
        if not self.in_unit:
            # What the endpoint did elsewhere stays done: it leaves a tombstone.
            try:
                await self._settle(start, None)
            except Exception as error:  # noqa: BLE001 - the refusal says it better than what came of it
                self._not_kept(error)
        await self.refuse(refused)
        raise Stopped from refused

    def _not_kept(self, error: Exception) -> None:
        """The endpoint has done its work elsewhere: only the record of it is missing."""
        _log.warning("answer not kept, a retry would run again", reason=str(error))
        self.outcome = "unrecorded"

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            if self.outcome is not None:
                self._settle_outcome(message["status"])
                own = self._own_headers(message["status"])
                message = {**message, "headers": [*message.get("headers", ()), *own]}
        await self._send(message)

    def _settle_outcome(self, status: int) -> None:
        if self.outcome == "ignored" and status >= 400:
            self.outcome = "refused"
        elif self.outcome == "refused" and self.claim is not None and status < 400:
            self.outcome = "executed"

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
        elif self.outcome == "executed":
            yield b"idempotency-expires", _http_date(int(self.expires_at_s)).encode()


@lru_cache(maxsize=64)
def _http_date(at_s: int) -> str:
    """Return the IMF-fixdate (RFC 9110, section 5.6.7) of *at_s* seconds since 1970."""
    return formatdate(at_s, usegmt=True)


def _response_to(request: Request, error: Exception) -> Response:
    if isinstance(error, RelayboxError):
        return error_response(request, error)
    return (
        framework_response(request, error)
        if isinstance(error, HTTPException)
        else internal_error(request, error)
    )


def _why_unkeepable(headers: Headers, message: Message, *, keyed: bool) -> str | None:
    endless = message.get("more_body", False) and "content-length" not in headers
    if endless or message["type"] != "http.response.body":
        return "streams its answer; return a whole one"
    if keyed and headers.get("content-encoding", "identity") != "identity":
        return (
            "compresses its answer; add what compresses after IdempotencyMiddleware, which it then surrounds"
        )
    return None


async def _to_its_end(commit: Awaitable[None]) -> None:
    """Await *commit*; a request that is given up meanwhile waits for it, however often it is told so (G64).

    Servers and frameworks cancel once or again and again (anyio does). A session that is closed while its
    commit is on the way is in neither state.
    """
    running = asyncio.ensure_future(commit)
    given_up: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            given_up = error
    if given_up is not None:
        raise given_up from running.exception()
    running.result()
