"""Define the errors of requests with an idempotency key.

If the response to a request is one of these errors, that request has had no effect. An earlier request with
the same key may have been executed.

::

    RelayboxError
    └── IdempotencyError
        ├── KeyInvalid         the request does not have exactly one valid key
        ├── KeyMissing         the endpoint requires a key
        ├── RequestInFlight    another request with this key is still running
        ├── KeyReused          the key was used for another request
        ├── ResponseNotKept    executed before; the response was too large, contained a secret, or is erased
        └── StoreUnavailable   Redis, which stores the responses, is unreachable
"""

from collections.abc import Mapping
from typing import ClassVar, Final

from relaybox.errors import RelayboxError

__all__ = (
    "IdempotencyError",
    "KeyInvalid",
    "KeyMissing",
    "KeyReused",
    "RequestInFlight",
    "ResponseNotKept",
    "StoreUnavailable",
)


class IdempotencyError(RelayboxError):
    """Base class of the errors of this package; a request whose response is one of them has had no effect."""

    error_code: ClassVar[str] = "IDEMPOTENCY_ERROR"


class KeyInvalid(IdempotencyError):
    """Raised when a request does not have exactly one key of 1 to 255 printable ASCII characters (G60)."""

    error_code = "IDEMPOTENCY_KEY_INVALID"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The idempotency key {reason}; send one key of 1 to 255 printable ASCII characters")


class KeyMissing(IdempotencyError):
    """Raised when an endpoint requires a key and the request has none."""

    error_code = "IDEMPOTENCY_KEY_MISSING"

    def __init__(self) -> None:
        super().__init__("The header 'Idempotency-Key' is required; send a random value, such as a UUID")


class RequestInFlight(IdempotencyError):
    """Raised while another request with this key is running (G62); repeat the request later."""

    error_code = "REQUEST_IN_FLIGHT"

    def __init__(self) -> None:
        super().__init__("A request with this idempotency key is still running; repeat the request later")


class KeyReused(IdempotencyError):
    """Raised when the key was used for another method, path, query, content type or body (G62)."""

    error_code = "IDEMPOTENCY_KEY_REUSED"

    def __init__(self) -> None:
        super().__init__("This idempotency key was used for another request; send a new key")


#: Second part of the message, by the reason that is stored instead of the response's body.
_NOT_KEPT: Final = {
    "erased": "its response has been erased; do not repeat the request",
    "secret": "its response held a secret, which is never stored; create a new secret if it is lost",
}


class ResponseNotKept(IdempotencyError):
    """Raised when a request was executed before, and its response is not stored (G67).

    The response was too large to store, contained a secret, or was erased. The request is not executed again.
    """

    error_code = "RESPONSE_NOT_KEPT"

    def __init__(self, status: int, headers: Mapping[str, str], *, why: str | None = None) -> None:
        """Describe the first response.

        Args:
            status: Status of the first response.
            headers: Stored headers of the first response; their names are in lower case.
            why: Reason that is stored instead of the body: ``erased`` or ``secret``. None or any other value
                means that the body was too large to store.
        """
        self.original_status = status
        #: Header ``Location`` of the first response; None if it had none.
        self.location = headers.get("location")
        reason = _NOT_KEPT.get(
            why or "",
            "its response was too large to store; read the created resource instead of repeating the request",
        )
        super().__init__(f"This request was executed with status {status}; {reason}")


class StoreUnavailable(IdempotencyError):
    """Raised when Redis, which stores the responses, is unreachable or fails; try again later.

    If storing a response or releasing a lock fails, the effect of the request may be committed already. If
    PostgreSQL stores the responses, its failures are :class:`relaybox.db.DatabaseUnavailable`.
    """

    error_code = "IDEMPOTENCY_STORE_UNAVAILABLE"
