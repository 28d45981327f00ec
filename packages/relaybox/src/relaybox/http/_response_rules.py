"""What of a response is stored, how a request with a key ended, and the headers that report it; pure."""

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
    #: An error response; nothing is stored.
    REFUSED = "refused"
    EXECUTED = "executed"
    REPLAYED = "replayed"
    #: The endpoint was executed, but storing its response failed.
    UNRECORDED = "unrecorded"


def final_outcome(outcome: Outcome, status: int, *, has_claim: bool) -> Outcome:
    """Return the outcome of a request whose response has *status*."""
    if outcome is Outcome.IGNORED and status >= 400:
        return Outcome.REFUSED
    if outcome is Outcome.REFUSED and has_claim and status < 400:
        return Outcome.EXECUTED
    return outcome


def outcome_headers(
    outcome: Outcome, status: int, *, refusal: object, expires_at_s: float
) -> Iterable[tuple[bytes, bytes]]:
    """Return the headers that tell a client how its key was used.

    *refusal* is the error that the response reports, None without one.
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
    """Return why the response to which *message* belongs cannot be stored (G67); None if it can."""
    is_stream = message.get("more_body", False) and "content-length" not in headers
    if is_stream or message["type"] != "http.response.body":
        return "streams its response; return a response that is not streamed"
    if has_claim and headers.get("content-encoding", "identity") != "identity":
        return "compresses its response; add the compressing middleware after IdempotencyMiddleware"
    return None


@lru_cache(maxsize=64)
def http_date(at_s: int) -> str:
    """Return the IMF-fixdate (RFC 9110, section 5.6.7) of *at_s* seconds since 1970."""
    return formatdate(at_s, usegmt=True)
