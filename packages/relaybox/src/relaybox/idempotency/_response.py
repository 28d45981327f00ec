"""What is remembered of an answer: enough to give it again, and nothing that belongs to one exchange."""

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

#: All that a replay repeats of an answer's headers (G66), in lower case: no cookie, no date, no request id.
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
#: What most answers have; left out, so that a claim takes half the space.
_USUAL: Final[Mapping[str, str]] = {"content-type": "application/json"}
#: Names of ours in a stored document; no result has them. Short, as each claim has one: where the body is.
_TEXT: Final = "~t"
_APART: Final = "~b"
_OURS: Final = (_TEXT, _APART)
_APART_MARK: Final = f'"{_APART}"'
#: A longer one would make the claim a wide row, which is dear to remove.
_TEXT_BYTES_MAX: Final = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class ResponseParts:
    """An answer as it goes to a client, less what belongs to one exchange."""

    status: int
    #: Names in lower case.
    headers: Mapping[str, str] = field(default_factory=lambda: dict(_USUAL))
    #: None: there is no end to it, or nobody wants to keep it.
    body: bytes | None = b""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A client's key, bound to who sent it and what for."""

    #: As the client sent it, or generated.
    key: str
    #: Whose key it is.
    scope: str
    #: The two as they are stored, see :func:`stored_key`.
    stored_key: str
    #: See :func:`fingerprint_of`.
    fingerprint: str
    ttl_s: float
    #: A larger body is not kept.
    body_bytes_max: int
    #: No body is kept.
    secret: bool = False
    #: Returns the fingerprint by bytes, which responses stored by version 0.1 have; None if the other is by
    #: bytes.
    fingerprint_by_bytes: Callable[[], str] | None = None
    #: What the answer is about: ids whose erasure is its own.
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredResponse:
    """What is kept under a key."""

    #: As it was given, less the body.
    result: Mapping[str, Any]
    #: None: the result has none, or has a word for why.
    body: bytes | None
    created_at: datetime
    expires_at: datetime
    #: By the store's clock.
    age_s: float

    @classmethod
    def from_row(cls, row: Mapping[str, Any], apart: bytes | None = None) -> Self:
        """Read what a store knows of a key; *apart* is the body, if it lies apart from the rest."""
        result: dict[str, Any] = from_json(row["result"])
        text: str | None = result.pop(_TEXT, None)
        result.pop(_APART, None)
        return cls(
            result=result,
            body=apart if text is None else text.encode(),
            created_at=row["created_at"],
            expires_at=row["expires_at"],
            age_s=row["age_s"],
        )

    def document(self) -> dict[str, Any]:
        """What was given to ``cache_idempotency_result``."""
        return {**self.result, "body": self.body} if self.body is not None else dict(self.result)


def split_body(result: Mapping[str, Any]) -> tuple[str, bytes | None]:
    """*result* as it is stored: its document as JSON, and the bytes that lie apart from it.

    A short text, as most answers are, is part of the document: a row less to write, to read and to forget.

    Raises:
        ValueError: it is no JSON, PostgreSQL cannot store it, or it uses a name of ours.
    """
    if not result.keys().isdisjoint(_OURS):
        raise ValueError(f"a result has no {' and no '.join(_OURS)}: these say where its body lies")
    body = result.get("body")
    if not isinstance(body, bytes):
        return _document(result), None
    rest = {name: value for name, value in result.items() if name != "body"}
    if len(body) <= _TEXT_BYTES_MAX and b"\0" not in body:
        try:
            return _document({**rest, _TEXT: body.decode()}), None
        except UnicodeDecodeError:
            pass
    return _document({**rest, _APART: True}), body


def _document(result: Mapping[str, Any]) -> str:
    document = to_json(result)
    # NaN is written without a word, and read by nobody.
    from_json(document, allow_inf_nan=False)
    if contains_nul(document):
        raise ValueError("a result cannot hold the character NUL")
    return document.decode()


def has_separate_body(document: str) -> bool:
    """Whether the body of a stored *document* has to be read from where it lies."""
    return _APART_MARK in document


class Replay(Exception):
    """Raised where a request turns out to be answered already; the middleware answers it again (G66)."""

    def __init__(self, response: ResponseParts, stored: StoredResponse) -> None:
        super().__init__("answered before")
        self.response = response
        self.stored = stored


def stored_result(response: ResponseParts, claim: Claim) -> dict[str, Any]:
    """What to keep of *response* under *claim*: a result whose ``body`` is bytes, or a word."""
    result: dict[str, Any] = {"status": response.status, "fingerprint": claim.fingerprint}
    kept = {name: value for name, value in response.headers.items() if name in REPLAYED_HEADERS}
    if kept != _USUAL:
        result["headers"] = kept
    if claim.targets:
        result["targets"] = claim.targets
    if claim.secret and response.body:
        return {**result, "body": "secret"}
    if response.body is None or len(response.body) > claim.body_bytes_max:
        return {**result, "body": "too large"}
    return {**result, "body": response.body or "empty"}


def replay_of(stored: StoredResponse, claim: Claim) -> Replay:
    """What gives the answer again to *claim*.

    Raises:
        KeyReused: it was the answer to another request.
        ResponseNotKept: its body was too large to keep, or secret, or what it was about is erased.
    """
    result = stored.result
    if not _is_same_request(result.get("fingerprint"), claim):
        raise KeyReused
    headers: Mapping[str, str] = result.get("headers", _USUAL)
    if stored.body is None and result.get("body") != "empty":
        raise ResponseNotKept(result["status"], headers, why=result.get("body"))
    response = ResponseParts(status=result["status"], headers=headers, body=stored.body or b"")
    return Replay(response, stored)


def _is_same_request(known: str | None, claim: Claim) -> bool:
    if known == claim.fingerprint:
        return True
    return claim.fingerprint_by_bytes is not None and known == claim.fingerprint_by_bytes()


def replayable_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Those of an answer's raw *headers* that a replay repeats; several of one name become one list."""
    kept: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in REPLAYED_HEADERS:
            kept[name] = f"{kept[name]}, {value}" if name in kept else value
    return kept
