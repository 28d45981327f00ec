"""Verify bearer tokens and return their principal (RFC 7519, RFC 8725).

:class:`SharedSecretVerifier` verifies tokens with a shared secret. To verify with an issuer's public keys
(JWKS), write a class with the same method ``verify``.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

import jwt

from relaybox.http._errors import TokenExpired, TokenInvalid
from relaybox.settings import JwtSettings, load_settings

__all__ = ("Principal", "SharedSecretVerifier", "TokenVerifier", "make_token")

_TOKEN_BYTES_MAX: Final = 8 * 1024
_SUBJECT_CHARS_MAX: Final = 255
#: The only accepted algorithm, even if the token names another (RFC 8725, section 3.1).
_ALGORITHM: Final = "HS256"
_REQUIRED: Final = ("exp", "iat", "iss", "aud", "sub")
#: The end of year 9999 in seconds since 1970; a later time is an error, such as a time in milliseconds.
_TIME_S_MAX: Final = 253_402_300_799
#: Maximum number of cached tokens. Valid tokens are cached because a client sends the same token many times.
_CACHED_MAX: Final = 1_024
#: Errors that mean an invalid token. PyJWT before 2.15 also raises Python's errors for malicious tokens, such
#: as a header with 5,000 levels of nesting or a time of 1e400.
_INVALID: Final = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """The sender of a request, identified by issuer and subject together."""

    #: The token's ``iss``.
    issuer: str
    #: The token's ``sub``, 1 to 255 printable characters; ``owner`` of the aggregates that the sender
    #: creates.
    subject: str


class TokenVerifier(Protocol):
    """The interface of a verifier of bearer tokens."""

    async def verify(self, token: str) -> Principal:
        """Return the principal of *token*.

        Raises:
            TokenInvalid: The token is not valid.
            TokenExpired: The token has expired.
        """
        ...


class SharedSecretVerifier:
    """Verify HS256 tokens with a shared secret: signature, times, issuer, audience, subject.

    Up to 1,024 valid tokens are cached until they expire, because a verification takes 36 µs, a sixth of the
    time of a request (measured without a database). A valid token becomes invalid only when it expires, so a
    cached token needs no other check than that of its expiry.
    """

    def __init__(self, settings: JwtSettings | None = None) -> None:
        """Use *settings*; None reads ``JWT_*`` from the environment at the first token."""
        self._given_settings = settings
        self._jwt = jwt.PyJWT()
        self._cache: dict[str, tuple[Principal, float]] = {}

    @cached_property
    def _settings(self) -> JwtSettings:
        return self._given_settings or load_settings(JwtSettings)

    @cached_property
    def _key(self) -> bytes:
        return self._settings.secret.get_secret_value().encode()

    async def verify(self, token: str) -> Principal:
        """Return the principal of *token*, without I/O.

        Raises:
            TokenInvalid: Format, signature, issuer, audience, subject or times are wrong.
            TokenExpired: The token has expired, and its signature is valid. Issuer, audience and subject of
                an expired token are not checked.
        """
        known = self._cache.get(token)
        if known is not None and time.time() < known[1]:
            return known[0]
        claims = self._check(token)
        principal = Principal(issuer=claims["iss"], subject=_subject(claims))
        self._store(token, principal, claims["exp"] + self._settings.leeway_s)
        return principal

    def _store(self, token: str, principal: Principal, until_s: float) -> None:
        if len(self._cache) >= _CACHED_MAX:
            # Remove the oldest entry; if its token is sent again, the token is verified again.
            del self._cache[next(iter(self._cache))]
        self._cache[token] = (principal, until_s)

    def _check(self, token: str) -> Mapping[str, Any]:
        if len(token) > _TOKEN_BYTES_MAX:
            raise TokenInvalid(
                f"The token is longer than {_TOKEN_BYTES_MAX} bytes; get a token with fewer claims"
            )
        try:
            claims = self._claims(token)
            _check_times(claims)
        except jwt.ExpiredSignatureError:
            raise TokenExpired from None
        except _INVALID:
            # Without the reason, which would help attackers more than clients.
            raise TokenInvalid("The token is not valid here; get a new token from the issuer") from None
        return claims

    def _claims(self, token: str) -> Mapping[str, Any]:
        return self._jwt.decode(  # pyright: ignore[reportUnknownMemberType]
            token,
            self._key,
            algorithms=[_ALGORITHM],
            audience=self._settings.audience,
            issuer=self._settings.issuer,
            leeway=self._settings.leeway_s,
            options={"require": list(_REQUIRED)},
        )


def make_token(settings: JwtSettings, subject: str, ttl_s: int = 3_600) -> str:
    """Return a token for *subject* that is valid for *ttl_s* seconds, for development and tests.

    Raises:
        ValueError: *subject* does not have 1 to 255 printable characters.
    """
    if not _is_subject(subject):
        raise ValueError(f"the subject must have 1 to {_SUBJECT_CHARS_MAX} printable characters")
    now = int(time.time())
    claims = {
        "iss": settings.issuer,
        "aud": settings.audience,
        "sub": subject,
        "iat": now,
        "exp": now + ttl_s,
    }
    key = settings.secret.get_secret_value()
    return jwt.encode(claims, key, algorithm=_ALGORITHM)  # pyright: ignore[reportUnknownMemberType]


def _check_times(claims: Mapping[str, Any]) -> None:
    """Check that ``exp``, ``iat`` and ``nbf`` are NumericDates (RFC 7519, section 2).

    PyJWT does not check this: it accepts each value that ``int()`` accepts, such as a text.

    Raises:
        ValueError: A time is neither int nor float, negative, or after the year 9999.
    """
    for name in ("exp", "iat", "nbf"):
        value = claims.get(name, 0)
        if type(value) not in (int, float) or not 0 <= value <= _TIME_S_MAX:
            raise ValueError(name)


def _subject(claims: Mapping[str, Any]) -> str:
    subject = claims["sub"]
    if not _is_subject(subject):
        raise TokenInvalid(
            f"The claim 'sub' must have 1 to {_SUBJECT_CHARS_MAX} printable characters; "
            "get a token with a valid subject"
        )
    return subject


def _is_subject(subject: object) -> bool:
    return isinstance(subject, str) and 0 < len(subject) <= _SUBJECT_CHARS_MAX and subject.isprintable()
