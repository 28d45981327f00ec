"""Convert responses to the documents that are stored, and back to the responses that a replay sends."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self

from pydantic_core import from_json, to_json

from relaybox.db import contains_nul
from relaybox.idempotency._errors import KeyReused, ResponseNotKept

__all__ = (
    "REPLAYED_HEADERS",
    "Claim",
    "Replay",
    "ResponseParts",
    "StoredResponse",
    "has_separate_body",
    "replay_of",
    "replayable_headers",
    "split_body",
    "stored_result",
)

#: Headers that a replay repeats (G66), in lower case: no cookie, no date, no request id.
REPLAYED_HEADERS: Final = frozenset(
    {
        "content-type",
        "content-language",
        "location",
        "content-location",
        "etag",
        "last-modified",
        "link",
    }
)
#: A response with exactly these headers is stored without headers, so that most rows take half the space.
_DEFAULT_HEADERS: Final[Mapping[str, str]] = {"content-type": "application/json"}
#: Reserved members of a stored document: the body as text, and a mark that the body is in a row of its own.
#: Their names are short, because most documents have one of them.
_INLINE: Final = "~t"
_SEPARATE: Final = "~b"
_RESERVED: Final = (_INLINE, _SEPARATE)
_SEPARATE_MARK: Final = f'"{_SEPARATE}"'
#: Size of the largest body that is stored in the row of its claim. A larger body gets a row of its own,
#: because wide rows take longer to delete.
_INLINE_BYTES_MAX: Final = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class ResponseParts:
    """Status, headers and body of a response to store or to send."""

    status: int
    #: Headers, by their names in lower case.
    headers: Mapping[str, str] = field(default_factory=lambda: dict(_DEFAULT_HEADERS))
    #: None if the body cannot be stored; then status and headers are stored, and a retry gets 410.
    body: bytes | None = b""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A key that a request claims, the principal of the key, and how to store the response under the key."""

    #: The key as the client sent it, or as the application generated it.
    key: str
    #: Scope of the key's principal, see :func:`scope_of`.
    scope: str
    #: Hash of scope and key under which the response is stored, see :func:`stored_key`.
    stored_key: str
    #: Distinguishes a retry from another request with the same key, see :func:`fingerprint_of`.
    fingerprint: str
    #: Seconds for which the response is stored.
    ttl_s: float
    #: Size in bytes of the largest body that is stored.
    body_bytes_max: int
    #: Whether the body of the request or response contains a secret; then the response's body is not stored.
    secret: bool = False
    #: Function that computes the fingerprint from the bytes of the body, as version 0.1 did for the responses
    #: that it stored; None if ``fingerprint`` itself is computed from the bytes.
    fingerprint_by_bytes: Callable[[], str] | None = None
    #: Ids of aggregates; the erasure of one of them erases the response too.
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredResponse:
    """The response stored under a key."""

    #: The stored document, without the body.
    result: Mapping[str, Any]
    #: The body; None if none is stored, with the reason in ``result["body"]``.
    body: bytes | None
    created_at: datetime
    expires_at: datetime
    #: Seconds since the response was stored, by the clock of the store.
    age_s: float

    @classmethod
    def from_row(cls, row: Mapping[str, Any], separate_body: bytes | None = None) -> Self:
        """Create the response from the row of its key.

        Args:
            row: ``result`` (the stored document as JSON text), ``created_at``, ``expires_at`` and ``age_s``.
            separate_body: The body, if it is in a row of its own; ignored if *row* contains the body.
        """
        result: dict[str, Any] = from_json(row["result"])
        text: str | None = result.pop(_INLINE, None)
        result.pop(_SEPARATE, None)
        return cls(
            result=result,
            body=separate_body if text is None else text.encode(),
            created_at=row["created_at"],
            expires_at=row["expires_at"],
            age_s=row["age_s"],
        )

    def document(self) -> dict[str, Any]:
        """Return the result as it was passed to ``cache_idempotency_result``."""
        return {**self.result, "body": self.body} if self.body is not None else dict(self.result)


def split_body(result: Mapping[str, Any]) -> tuple[str, bytes | None]:
    """Return the JSON document to store for *result*, and the body if the body needs a row of its own.

    A body of at most 512 bytes that is UTF-8 without NUL becomes part of the document. Most responses then
    need no second row.

    Args:
        result: An object of JSON types; its member ``body`` may be bytes.

    Returns:
        The document, and the body; the body is None if the document contains it or if it is not bytes.

    Raises:
        ValueError: *result* cannot be written as JSON, contains NaN or the NUL character, or has a member
            ``~t`` or ``~b``, whose names are reserved.
    """
    if not result.keys().isdisjoint(_RESERVED):
        raise ValueError(
            f"a result must not have the members {' or '.join(_RESERVED)}, which are reserved; rename them"
        )
    body = result.get("body")
    if not isinstance(body, bytes):
        return _document(result), None
    rest = {name: value for name, value in result.items() if name != "body"}
    if len(body) <= _INLINE_BYTES_MAX and b"\0" not in body:
        try:
            return _document({**rest, _INLINE: body.decode()}), None
        except UnicodeDecodeError:
            pass
    return _document({**rest, _SEPARATE: True}), body


def _document(result: Mapping[str, Any]) -> str:
    document = to_json(result)
    # to_json writes NaN without an error, but PostgreSQL refuses NaN.
    from_json(document, allow_inf_nan=False)
    if contains_nul(document):
        raise ValueError("a result must not contain the NUL character (U+0000); remove it")
    return document.decode()


def has_separate_body(document: str) -> bool:
    """Return whether the body of a stored *document* is in a row of its own."""
    return _SEPARATE_MARK in document


class Replay(Exception):
    """Raised when a response is stored under a request's key; the middleware sends that response (G66)."""

    def __init__(self, response: ResponseParts, stored: StoredResponse) -> None:
        """Create the replay.

        Args:
            response: The response to send.
            stored: The stored response from which *response* was made.
        """
        super().__init__("a response is stored under the key")
        self.response = response
        self.stored = stored


def stored_result(response: ResponseParts, claim: Claim) -> dict[str, Any]:
    """Return the document to store for *response*.

    Its member ``body`` is the body as bytes, or a reason why there is none: ``empty``, ``secret`` or ``too
    large``.
    """
    result: dict[str, Any] = {"status": response.status, "fingerprint": claim.fingerprint}
    kept = {name: value for name, value in response.headers.items() if name in REPLAYED_HEADERS}
    if kept != _DEFAULT_HEADERS:
        result["headers"] = kept
    if claim.targets:
        result["targets"] = claim.targets
    if claim.secret and response.body:
        return {**result, "body": "secret"}
    if response.body is None or len(response.body) > claim.body_bytes_max:
        return {**result, "body": "too large"}
    return {**result, "body": response.body or "empty"}


def replay_of(stored: StoredResponse, claim: Claim) -> Replay:
    """Return the replay that sends the response *stored* to the request with *claim*.

    Raises:
        KeyReused: The key was used for another request.
        ResponseNotKept: The body was too large to store, contained a secret, or was erased.
    """
    result = stored.result
    if not _is_same_request(result.get("fingerprint"), claim):
        raise KeyReused
    headers: Mapping[str, str] = result.get("headers", _DEFAULT_HEADERS)
    if stored.body is None and result.get("body") != "empty":
        raise ResponseNotKept(result["status"], headers, why=result.get("body"))
    response = ResponseParts(status=result["status"], headers=headers, body=stored.body or b"")
    return Replay(response, stored)


def _is_same_request(known: str | None, claim: Claim) -> bool:
    if known == claim.fingerprint:
        return True
    return claim.fingerprint_by_bytes is not None and known == claim.fingerprint_by_bytes()


def replayable_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return those of the ASGI *headers* that a replay repeats; values of one name are joined by commas."""
    kept: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in REPLAYED_HEADERS:
            kept[name] = f"{kept[name]}, {value}" if name in kept else value
    return kept
