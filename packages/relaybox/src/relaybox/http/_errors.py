"""Define the errors of this package: refused requests, unusable responses, ignored idempotency keys.

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
    └── KeysIgnored                                raised at start-up
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
    """Base of errors whose class defines the response's status and headers, without the error table."""

    error_code = "BAD_REQUEST"
    #: HTTP status of the response.
    status: ClassVar[int] = 400
    #: Headers of the response.
    headers: ClassVar[Mapping[str, str]] = {}


class TokenMissing(HttpError):
    """Raised for a request without ``Authorization: Bearer <token>``, or with an unusable stream ticket."""

    error_code = "TOKEN_MISSING"
    status = 401
    # Without an error attribute, as RFC 6750 (section 3.1) requires for a request without a token.
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}

    def __init__(
        self, message: str = "A token is required: send the header 'Authorization: Bearer <token>'"
    ) -> None:
        super().__init__(message)


class TokenInvalid(HttpError):
    """Raised for an invalid token, or for several ``Authorization`` headers; see also TokenExpired."""

    error_code = "TOKEN_INVALID"
    status = 401
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


class TokenExpired(HttpError):
    """Raised for a token whose signature is valid, and which has expired."""

    error_code = "TOKEN_EXPIRED"
    status = 401
    headers: ClassVar[Mapping[str, str]] = {
        "WWW-Authenticate": 'Bearer error="invalid_token", error_description="expired"'
    }

    def __init__(self) -> None:
        super().__init__("The token has expired; get a new token")


class MalformedJson(HttpError):
    """Raised when a body is not JSON (RFC 8259, UTF-8)."""

    error_code = "MALFORMED_JSON"


class BadHeader(HttpError):
    """Raised when a header is malformed; the message names the header and the required form."""

    error_code = "HEADER_INVALID"

    def __init__(self, header: str, form: str) -> None:
        super().__init__(f"The header '{header}' must be {form}; correct it or leave it out")


class BodyTimeout(HttpError):
    """Raised when a client takes too long to send its body; the response closes the connection."""

    error_code = "BODY_TIMEOUT"
    status = 408
    # On an open connection, the rest of the body would be read as the next request (RFC 9110, 15.5.9).
    headers: ClassVar[Mapping[str, str]] = {"Connection": "close"}

    def __init__(self, allowed_s: float) -> None:
        super().__init__(
            f"The body did not arrive within {allowed_s:.3g} s; send the request again, or in smaller parts"
        )


class BodyTooLarge(HttpError):
    """Raised when ``Content-Length``, or the number of received bytes, is over the limit of the route."""

    error_code = "BODY_TOO_LARGE"
    status = 413

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"The body is larger than {limit_bytes} bytes, the limit of this route; send a smaller body"
        )


class UnsupportedMediaType(HttpError):
    """Raised when a body does not have the media type that the route requires.

    *wanted* describes the required media type in the message, by default JSON in UTF-8.
    """

    error_code = "UNSUPPORTED_MEDIA_TYPE"
    status = 415

    def __init__(self, wanted: str = "'Content-Type: application/json', in UTF-8 and not compressed") -> None:
        super().__init__(f"Send the body as {wanted}")


class JsonTooDeep(HttpError):
    """Raised when a JSON body has more levels of nesting than are allowed."""

    error_code = "JSON_TOO_DEEP"
    status = 422

    def __init__(self, levels_max: int) -> None:
        super().__init__(f"The JSON has more than {levels_max} levels of nesting; send a flatter document")


class JsonTooManyValues(HttpError):
    """Raised when JSON over 1 MiB has so many values that parsing it would block other requests."""

    error_code = "JSON_TOO_MANY_VALUES"
    status = 422

    def __init__(self, values_max: int) -> None:
        super().__init__(
            f"The JSON is larger than 1 MiB and has more than {values_max} values or strings; split the data "
            "over several requests"
        )


class JsonNotStorable(HttpError):
    """Raised for JSON that PostgreSQL cannot store: NUL, half of a surrogate pair, a too large number."""

    error_code = "JSON_NOT_STORABLE"
    status = 422


class ValidationFailed(HttpError):
    """Raised when a request does not match its schema; ``details`` names each field and its problem."""

    error_code = "VALIDATION_ERROR"
    status = 422

    def __init__(self, details: Sequence[Detail]) -> None:
        super().__init__("The request does not match the route's schema; correct the fields in 'details'")
        self.details = details


class ResponseNotStorable(HttpError):
    """Raised when a response cannot be held back until the commit, or cannot be stored (G67).

    A streamed response cannot be held back. A compressed response cannot be stored.
    """

    error_code = "ANSWER_UNKEEPABLE"
    status = 500

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} {reason}")


def validation_details(error: ValidationError, *, within: str = "body") -> list[Detail]:
    """Return fields and problems of *error*: ``[{"field": "body.payload.x", "message": "…"}]``.

    The result has at most 20 entries. It does not contain values of the request, which may be private.
    *within* is the first part of each field's path, before the first dot.
    """
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return error_details(problems, within)


class KeysIgnored(RelayboxError):
    """Raised at the start when routes accept idempotency keys and no middleware handles the keys."""

    error_code = "KEYS_IGNORED"

    def __init__(self, paths: Sequence[str]) -> None:
        """Name *paths*, the paths of the routes that accept keys, in the message."""
        super().__init__(
            f"No IdempotencyMiddleware handles the idempotency keys of {', '.join(paths)}; create the "
            "application with relaybox.http.create_app, or call app.add_middleware(IdempotencyMiddleware)"
        )
