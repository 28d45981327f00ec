"""Decide by pure functions whether a response can be stored, and how a request with a key ended."""

from collections.abc import Iterable
from email.utils import formatdate
from enum import StrEnum
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.types import Message

from relaybox.idempotency import ResponseNotKept

__all__ = ("Outcome", "final_outcome", "http_date", "outcome_headers", "why_not_storable")


class Outcome(StrEnum):
    """How a request with a key ended, for the metrics."""

    #: The endpoint did not use the key.
    IGNORED = "ignored"
    #: The response is an error, which is not stored.
    REFUSED = "refused"
    #: The endpoint was executed, and its response is stored.
    EXECUTED = "executed"
    #: The stored response was sent.
    REPLAYED = "replayed"
    #: The endpoint was executed, but storing its response failed.
    UNRECORDED = "unrecorded"


def final_outcome(outcome: Outcome, status: int, *, has_claim: bool) -> Outcome:
    """Return the outcome of a request whose response has *status*.

    Args:
        outcome: The outcome so far. IGNORED: nothing has used the key. REFUSED: a component has begun to use
            the key, and no response was sent. REPLAYED and UNRECORDED are final.
        status: Status of the response.
        has_claim: Whether the request has claimed the key under which a successful response is stored.
    """
    if outcome is Outcome.IGNORED and status >= 400:
        return Outcome.REFUSED
    if outcome is Outcome.REFUSED and has_claim and status < 400:
        return Outcome.EXECUTED
    return outcome


def outcome_headers(
    outcome: Outcome, status: int, *, refusal: object, expires_at_s: float
) -> Iterable[tuple[bytes, bytes]]:
    """Yield the headers that show a client how its key was used; none for most errors.

    Args:
        outcome: How the request ended.
        status: Status of the response.
        refusal: The error that the response reports; None if it reports none.
        expires_at_s: Unix time until which a stored response is valid.
    """
    if isinstance(refusal, ResponseNotKept):
        yield b"idempotent-replayed", b"true"
        if refusal.location is not None:
            yield b"location", refusal.location.encode("latin-1")
    if status >= 400:
        return
    if outcome is Outcome.IGNORED:
        yield b"idempotency-status", b"ignored"
    elif outcome is Outcome.EXECUTED:
        yield b"idempotency-expires", http_date(int(expires_at_s)).encode()


def why_not_storable(headers: Headers, message: Message, *, has_claim: bool) -> str | None:
    """Return why a response cannot be stored (G67); None if it can.

    Args:
        headers: Headers of the response.
        message: An ASGI message after the head of the response; usually it has a part of the body.
        has_claim: Whether the response is to be stored. If not, the response is only held back until the
            commit, and may be compressed.
    """
    is_stream = message.get("more_body", False) and "content-length" not in headers
    if is_stream or message["type"] != "http.response.body":
        return (
            "streams its response, which cannot be held back until the commit; "
            "return a response that is not streamed"
        )
    if has_claim and headers.get("content-encoding", "identity") != "identity":
        return (
            "compresses its response, which then cannot be stored; add the compressing middleware after "
            "IdempotencyMiddleware, so that it runs around IdempotencyMiddleware"
        )
    return None


@lru_cache(maxsize=64)
def http_date(at_s: int) -> str:
    """Return the IMF-fixdate (RFC 9110, section 5.6.7) of *at_s* seconds since 1970."""
    return formatdate(at_s, usegmt=True)
