"""What a request can do wrong before any application sees it.

::

    RelayboxError
    └── HttpError
        ├── TokenMissing, TokenInvalid, TokenExpired   401
        ├── MalformedJson, BadHeader                   400
        ├── BodyTimeout                                408
        ├── BodyTooLarge                               413
        ├── UnsupportedMediaType                       415
        ├── JsonTooDeep, JsonTooManyValues, JsonNotStorable, ValidationFailed   422
        └── ResponseNotStorable                       500
    RelayboxError
    └── KeysIgnored                                stops the start
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import ValidationError

from relaybox.errors import Detail, RelayboxError, error_details

__all__ = (
    "BadHeader",
    "BodyTimeout",
    "BodyTooLarge",
    "HttpError",
    "JsonNotStorable",
    "JsonTooDeep",
    "JsonTooManyValues",
    "KeysIgnored",
    "MalformedJson",
    "ResponseNotStorable",
    "TokenExpired",
    "TokenInvalid",
    "TokenMissing",
    "UnsupportedMediaType",
    "ValidationFailed",
    "validation_details",
)


class HttpError(RelayboxError):
    """Base of the errors of this package: what the client must change about its request."""

    error_code = "BAD_REQUEST"
    #: The HTTP status it is answered with.
    status: ClassVar[int] = 400
    #: Headers of that answer.
    headers: ClassVar[Mapping[str, str]] = {}


class TokenMissing(HttpError):
    """Raised when a request has no ``Authorization: Bearer`` header; send one."""

    error_code = "TOKEN_MISSING"
    status = 401
    # Without an error attribute, as RFC 6750 (section 3.1) wants it for a request without a token.
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}

    def __init__(self) -> None:
        super().__init__("This needs a token: send the header 'Authorization: Bearer <token>'")


class TokenInvalid(HttpError):
    """Raised when a token is not one of ours: signature, issuer, audience, form or time of issue."""

    error_code = "TOKEN_INVALID"
    status = 401
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


class TokenExpired(HttpError):
    """Raised when a token was good once; get a new one."""

    error_code = "TOKEN_EXPIRED"
    status = 401
    headers: ClassVar[Mapping[str, str]] = {
        "WWW-Authenticate": 'Bearer error="invalid_token", error_description="expired"'
    }

    def __init__(self) -> None:
        super().__init__("The token has expired; get a new one")


class MalformedJson(HttpError):
    """Raised when a body is not JSON (RFC 8259, UTF-8)."""

    error_code = "MALFORMED_JSON"


class BadHeader(HttpError):
    """Raised when a header that we read has not the form it must have; the message names both."""

    error_code = "HEADER_INVALID"

    def __init__(self, header: str, form: str) -> None:
        super().__init__(f"The header '{header}' must be {form}; correct it or leave it out")


class BodyTimeout(HttpError):
    """Raised when a client takes too long to send the body that it began; the connection is closed."""

    error_code = "BODY_TIMEOUT"
    status = 408
    # What is left of the body would be read as the next request (RFC 9110, section 15.5.9).
    headers: ClassVar[Mapping[str, str]] = {"Connection": "close"}

    def __init__(self, allowed_s: float) -> None:
        super().__init__(
            f"The body did not arrive within {allowed_s:.3g} s; send the request again, or in smaller parts"
        )


class BodyTooLarge(HttpError):
    """Raised when a body has more bytes than its route takes, announced or counted."""

    error_code = "BODY_TOO_LARGE"
    status = 413

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The body is larger than the {limit_bytes} bytes that are taken here")


class UnsupportedMediaType(HttpError):
    """Raised when a body is not declared as what its route takes: *wanted*, else JSON in UTF-8."""

    error_code = "UNSUPPORTED_MEDIA_TYPE"
    status = 415

    def __init__(self, wanted: str = "'Content-Type: application/json', in UTF-8 and not compressed") -> None:
        super().__init__(f"Send the body as {wanted}")


class JsonTooDeep(HttpError):
    """Raised when JSON nests deeper than is taken."""

    error_code = "JSON_TOO_DEEP"
    status = 422

    def __init__(self, levels_max: int) -> None:
        super().__init__(f"The JSON nests deeper than {levels_max} levels")


class JsonTooManyValues(HttpError):
    """Raised when a large JSON body holds more values than can be parsed without blocking other requests."""

    error_code = "JSON_TOO_MANY_VALUES"
    status = 422

    def __init__(self, values_max: int) -> None:
        super().__init__(f"The JSON is larger than 1 MiB and holds more than {values_max} values; split it")


class JsonNotStorable(HttpError):
    """Raised when JSON holds what PostgreSQL cannot: NUL, half a surrogate pair, a number beyond a double."""

    error_code = "JSON_NOT_STORABLE"
    status = 422


class ValidationFailed(HttpError):
    """Raised when a request has a wrong form; ``details`` names each field and what is wrong with it."""

    error_code = "VALIDATION_ERROR"
    status = 422

    def __init__(self, details: Sequence[Detail]) -> None:
        super().__init__("The request has the wrong form; see details")
        self.details = details


class ResponseNotStorable(HttpError):
    """Raised when an answer cannot be kept as it is: it has no end, or is compressed (G67)."""

    error_code = "ANSWER_UNKEEPABLE"
    status = 500

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} {reason}")


def validation_details(error: ValidationError, *, within: str = "body") -> list[Detail]:
    """Where and why *error* refused its input: ``[{"field": "body.payload.x", "message": "…"}]``.

    Never holds the input itself, which may be private. At most 20 entries.
    """
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return error_details(problems, within)


class KeysIgnored(RelayboxError):
    """Raised at start-up when routes that take idempotency keys could not honour them."""

    error_code = "KEYS_IGNORED"

    def __init__(self, paths: Sequence[str]) -> None:
        """*paths* are those of the routes."""
        super().__init__(
            f"Idempotency keys would be ignored by {', '.join(paths)}: make the application by "
            "relaybox.http.create_app, or call app.add_middleware(IdempotencyMiddleware)"
        )
