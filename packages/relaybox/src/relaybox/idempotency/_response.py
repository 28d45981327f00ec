"""Stored responses: what a replay repeats, and nothing that belongs to one exchange of messages."""

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
#: The headers of most responses; not stored, so that a claim takes half the space.
_DEFAULT_HEADERS: Final[Mapping[str, str]] = {"content-type": "application/json"}
#: Reserved names in a stored document, which say where the body is; short, as each claim has one.
_INLINE: Final = "~t"
_SEPARATE: Final = "~b"
_RESERVED: Final = (_INLINE, _SEPARATE)
_SEPARATE_MARK: Final = f'"{_SEPARATE}"'
#: A longer text would make the claim a wide row, which is expensive to remove.
_INLINE_BYTES_MAX: Final = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class ResponseParts:
    """Status, headers and body of a response to store or to send."""

    status: int
    #: Names in lower case.
    headers: Mapping[str, str] = field(default_factory=lambda: dict(_DEFAULT_HEADERS))
    #: None: the body cannot be stored; only that the request was executed.
    body: bytes | None = b""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A client's key, bound to its principal and to the fingerprint of the request."""

    #: As the client sent it, or generated.
    key: str
    #: Principal of the key, see :func:`scope_of`.
    scope: str
    #: Hash of scope and key, see :func:`stored_key`.
    stored_key: str
    #: See :func:`fingerprint_of`.
    fingerprint: str
    ttl_s: float
    #: Larger bodies are not stored.
    body_bytes_max: int
    #: Store no body.
    secret: bool = False
    #: Returns the fingerprint by bytes, which responses stored by version 0.1 have; None if the other is by
    #: bytes.
    fingerprint_by_bytes: Callable[[], str] | None = None
    #: Ids whose erasure erases the response.
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredResponse:
    """The response stored under a key."""

    #: The stored document, without the body.
    result: Mapping[str, Any]
    #: None: there is no body, or ``result["body"]`` says why.
    body: bytes | None
    created_at: datetime
    expires_at: datetime
    #: By the store's clock.
    age_s: float

    @classmethod
    def from_row(cls, row: Mapping[str, Any], separate_body: bytes | None = None) -> Self:
        """Read a store's row of a key; *separate_body* is the body, if it is stored separately."""
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
        """Return what was given to ``cache_idempotency_result``."""
        return {**self.result, "body": self.body} if self.body is not None else dict(self.result)


def split_body(result: Mapping[str, Any]) -> tuple[str, bytes | None]:
    """Return *result* as stored: a JSON document, and the body if it is stored separately.

    A short text, as most bodies are, is part of the document: one row less to write, read and delete.

    Raises:
        ValueError: *result* is not JSON, PostgreSQL cannot store it, or it uses a reserved name.
    """
    if not result.keys().isdisjoint(_RESERVED):
        raise ValueError(
            f"a result must not contain {' or '.join(_RESERVED)}: these names say where its body is"
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
    # NaN is written without an error, but cannot be read.
    from_json(document, allow_inf_nan=False)
    if contains_nul(document):
        raise ValueError("a result must not contain the character NUL")
    return document.decode()


def has_separate_body(document: str) -> bool:
    """Whether the body of a stored *document* is stored separately."""
    return _SEPARATE_MARK in document


class Replay(Exception):
    """Raised when a response is stored under a request's key; the middleware sends that response (G66)."""

    def __init__(self, response: ResponseParts, stored: StoredResponse) -> None:
        super().__init__("a response is stored under the key")
        self.response = response
        self.stored = stored


def stored_result(response: ResponseParts, claim: Claim) -> dict[str, Any]:
    """Return the document to store: its ``body`` is bytes, or a word for why there is none."""
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
    """Return the replay of *stored* for *claim*.

    Raises:
        KeyReused: The response belongs to another request.
        ResponseNotKept: The body was too large to store, or secret, or was erased.
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
    """Return those raw *headers* that a replay repeats; several of one name become one list."""
    kept: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in REPLAYED_HEADERS:
            kept[name] = f"{kept[name]}, {value}" if name in kept else value
    return kept
