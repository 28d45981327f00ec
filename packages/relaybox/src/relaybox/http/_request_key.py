"""Read the idempotency key of a request, compute the digest of its body, and create its claim."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.datastructures import Headers, UploadFile
from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from relaybox.http._errors import BodyTooLarge
from relaybox.http._tokens import Principal
from relaybox.idempotency import (
    KEY_HEADERS,
    Claim,
    KeyMissing,
    Ttl,
    canonical_json,
    fingerprint_of,
    generate_key_from_request,
    parse_key,
    scope_of,
    sorted_query,
    stored_key,
    ttl_seconds,
)
from relaybox.settings import IdempotencySettings

__all__ = ("Policy", "RequestKey")

#: JSON bodies above this size are compared by their bytes, so that no copy of such a body is kept in memory.
_JSON_BYTES_MAX: Final = 1024 * 1024
#: JSON bodies above this size are parsed in a thread, because parsing 1 MiB takes about 20 ms.
_INLINE_BYTES_MAX: Final = 32 * 1024
#: Bytes of an uploaded file that are read at once.
_CHUNK_BYTES: Final = 64 * 1024
#: Fingerprint of every request with a generated key: the requests need no comparison, because the key is a
#: digest of the request.
_GENERATED_FINGERPRINT: Final = "generated"


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How one endpoint treats idempotency keys."""

    #: Whether requests without a key are refused.
    required: bool = False
    #: Time for which responses are stored: a timedelta or a number of seconds; None: ``IDEMPOTENCY_TTL_H``.
    ttl: Ttl = None
    #: Whether a key is generated from the request if the client sends none.
    auto: bool = False
    #: Whether the body of the request or of the response contains a secret. Then the digest of the request's
    #: body and the body of the response are not stored.
    secret: bool = False


class RequestKey:
    """The idempotency key of one request, and the digest of the body that the application reads.

    If the request has no key, no digest is computed.
    """

    def __init__(self, scope: Scope, receive: Receive, settings: IdempotencySettings) -> None:
        self._scope = scope
        self._settings = settings
        self._values = [value for name, value in scope["headers"] if name in KEY_HEADERS]
        #: The ASGI ``receive`` to pass to the application. If the request has a key, this function also
        #: computes the digest of the body.
        self.receive = receive
        if self._values:
            self._body = _BodyDigest(receive, is_json=_is_json(Headers(scope=scope)))
            self.receive = self._body.receive

    @property
    def is_present(self) -> bool:
        """Whether the client sent a key, valid or not."""
        return bool(self._values)

    async def read_body(self, request: Request) -> None:
        """Receive the whole body, so that the digest is complete; the application can read the body later.

        For a request without a key whose body was read as a stream before, this method does nothing.

        Raises:
            RuntimeError: The request has a key, and its body was read as a stream before, so that the digest
                may be incomplete.
        """
        if self._values and self._body.is_complete:
            return
        try:
            await request.body()
        except RuntimeError:
            # The body was read as a stream before. With a key this is an error: the digest may be incomplete.
            if self._values:
                raise

    async def read_ahead(self, bytes_max: int) -> bool:
        """Receive the body before the application does; return False if the client disconnected.

        Call this only for a request with a key.

        Raises:
            BodyTooLarge: The body has more than *bytes_max* bytes.
        """
        return await self._body.read_ahead(bytes_max)

    async def claim(
        self, request: Request, principal: Principal | str, policy: Policy, *, namespace: str
    ) -> Claim | None:
        """Create the claim on the key of *request*, without access to a store.

        Args:
            request: The request, whose whole body is received first.
            principal: The sender; equal keys of different senders are different keys.
            policy: Policy of the endpoint.
            namespace: Prefix of the claim's scope; keys in different namespaces are different keys.

        Returns:
            The claim; None for a request without a key, unless *policy* generates a key (``auto``).

        Raises:
            KeyInvalid: The request does not have exactly one valid key.
            KeyMissing: *policy* requires a key.
            RuntimeError: *principal* is neither a Principal nor a text, or is empty.
        """
        key, scope = parse_key(self._values), _principal_scope(principal)
        if key is None and not policy.auto:
            if policy.required:
                raise KeyMissing
            return None
        await self.read_body(request)
        if key is None:
            key, fingerprint, by_bytes = await _generate_key(request, scope), _GENERATED_FINGERPRINT, None
        else:
            fingerprint, by_bytes = await self._fingerprints(request, is_secret=policy.secret)
        scope = namespace + scope
        return Claim(
            key=key,
            scope=scope,
            stored_key=stored_key(scope, key, self._settings.secret),
            fingerprint=fingerprint,
            fingerprint_by_bytes=by_bytes,
            ttl_s=ttl_seconds(policy.ttl, self._settings),
            body_bytes_max=self._settings.body_bytes_max,
            secret=policy.secret,
        )

    async def _fingerprints(
        self, request: Request, *, is_secret: bool
    ) -> tuple[str, Callable[[], str] | None]:
        """Return the fingerprint of the request, and a function that computes a second fingerprint.

        If the body is compared by its JSON value, the fingerprint is computed from this value, and the
        function computes the fingerprint from the bytes of the body. Otherwise the fingerprint is computed
        from the bytes, and the function is None. With *is_secret* the body is not part of the fingerprint.
        """
        content_type = request.headers.get("content-type", "")
        where = (self._scope["method"], self._scope["path"], self._scope["query_string"], content_type)
        # A body with a secret is left out, because a short secret could be guessed from a stored digest.
        by_bytes = partial(fingerprint_of, *where, b"" if is_secret else self._body.digest())
        by_value = None if is_secret else await self._body.digest_by_value()
        if by_value is None:
            return by_bytes(), None
        return fingerprint_of(*where, by_value, by_value=True), by_bytes


class _BodyDigest:
    """An ASGI ``receive`` that passes on the server's messages and computes the digest of the body."""

    def __init__(self, receive: Receive, *, is_json: bool) -> None:
        self._receive = receive
        self._digest = hashlib.sha256()
        #: The body received so far; None for a body that is compared by its bytes.
        self._json = bytearray() if is_json else None
        self._by_value: bytes | None = None
        #: Messages that :meth:`read_ahead` has received, and :meth:`receive` has not returned yet.
        self._ahead: list[Message] = []
        #: Whether the whole body was received.
        self.is_complete = False

    async def receive(self) -> Message:
        """Return the next ASGI message, and add the part of the body in it to the digest."""
        if self._ahead:
            return self._ahead.pop(0)
        message = await self._receive()
        if message["type"] == "http.request":
            self._add(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)
        return message

    def _add(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        if self._json is not None:
            self._json += chunk
            if len(self._json) > _JSON_BYTES_MAX:
                self._json = None

    async def read_ahead(self, bytes_max: int) -> bool:
        """Receive the body for later calls of :meth:`receive`; return False if the client disconnects."""
        messages: list[Message] = []
        size_bytes = 0
        while not self.is_complete:
            message = await self.receive()
            messages.append(message)
            if message["type"] != "http.request":
                break
            size_bytes += len(message.get("body", b""))
            if size_bytes > bytes_max:
                raise BodyTooLarge(bytes_max)
        self._ahead = messages
        return self.is_complete

    def digest(self) -> bytes:
        """Return the SHA-256 of the bytes received so far."""
        return self._digest.digest()

    async def digest_by_value(self) -> bytes | None:
        """Return the SHA-256 of the body's :func:`canonical_json`; None if the body's bytes are compared."""
        if self._json is None or self._by_value is not None:
            return self._by_value
        body = bytes(self._json)
        if len(body) > _INLINE_BYTES_MAX:
            canonical = await asyncio.to_thread(canonical_json, body)
        else:
            canonical = canonical_json(body)
        self._by_value = None if canonical is None else hashlib.sha256(canonical).digest()
        return self._by_value


async def _generate_key(request: Request, scope: str) -> str:
    """Return a key that is the same for equal requests of one principal, whose scope is *scope*.

    Two requests are equal if method, path, query and body are equal. A JSON body is compared by its content.
    A form that FastAPI has parsed is compared by its fields. Any other body is compared by its bytes.
    """
    body: Any = await request.body() if _is_json(request.headers) else await _digest_of_body(request)
    query = sorted_query(request.scope["query_string"])
    path = f"{request.scope['path']}?{query}" if query else request.scope["path"]
    return generate_key_from_request(request.method, path, body, scope)


def _is_json(headers: Headers) -> bool:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


async def _digest_of_body(request: Request) -> Any:
    try:
        return hashlib.sha256(await request.body()).hexdigest()
    except RuntimeError:
        # FastAPI has parsed the body as a form, and keeps only the form.
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


def _principal_scope(principal: Principal | str) -> str:
    if isinstance(principal, Principal):
        return scope_of(principal.issuer, principal.subject)
    # Checked, because two senders with an empty principal could get each other's responses.
    if not isinstance(principal, str) or not principal:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise RuntimeError(
            "the principal of a request must be a relaybox.http.Principal or a non-empty text, not "
            f"{type(principal).__name__}; refuse requests whose sender is unknown"
        )
    return scope_of("", principal)
