"""Why a keyed request is not carried out.

::

    RelayboxError
    └── IdempotencyError
        ├── KeyInvalid         the header is not one key
        ├── KeyMissing         the endpoint wants a key
        ├── RequestInFlight    the first request with this key still runs
        ├── KeyReused          the key was used for another request
        ├── ResponseNotKept    carried out already; its answer was too large, or is erased
        └── StoreUnavailable   Redis, where the answers are kept, is away
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
    """Base of the errors of this package; nothing was carried out because of them."""

    error_code: ClassVar[str] = "IDEMPOTENCY_ERROR"


class KeyInvalid(IdempotencyError):
    """Raised when the header is not exactly one key of 1 to 255 printable ASCII characters (G60)."""

    error_code = "IDEMPOTENCY_KEY_INVALID"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The idempotency key {reason}; send one key of 1 to 255 printable ASCII characters")


class KeyMissing(IdempotencyError):
    """Raised when an endpoint that wants a key gets none."""

    error_code = "IDEMPOTENCY_KEY_MISSING"

    def __init__(self) -> None:
        super().__init__("This needs the header 'Idempotency-Key'; send a random one, such as a UUID")


class RequestInFlight(IdempotencyError):
    """Raised when the first request with this key has not ended (G62); the same again, later, is answered."""

    error_code = "REQUEST_IN_FLIGHT"

    def __init__(self) -> None:
        super().__init__("A request with this idempotency key still runs; send it again in a moment")


class KeyReused(IdempotencyError):
    """Raised when the key belongs to another request: method, path, query or body differ (G62)."""

    error_code = "IDEMPOTENCY_KEY_REUSED"

    def __init__(self) -> None:
        super().__init__("This idempotency key was used for another request; a new request needs a new key")


_NOT_KEPT: Final = {
    "erased": "what it was about has been erased since",
    "secret": "the answer held a secret, which is shown once and never kept; make a new one if it is lost",
}


class ResponseNotKept(IdempotencyError):
    """Raised instead of a replay when the answer was too large to keep (G67), or secret, or is erased.

    It is not carried out again.
    """

    error_code = "RESPONSE_NOT_KEPT"

    def __init__(self, status: int, headers: Mapping[str, str], *, why: str | None = None) -> None:
        """*why* is the word that is kept instead of the body."""
        self.original_status = status
        #: Where to look instead, if the answer had a ``Location``.
        self.location = headers.get("location")
        reason = _NOT_KEPT.get(
            why or "", "the answer was too large to keep, read what it made instead of sending it again"
        )
        super().__init__(f"This was carried out and answered with {status}; {reason}")


class StoreUnavailable(IdempotencyError):
    """Raised when Redis, where the answers are kept, cannot be reached or do its work; try again later.

    PostgreSQL's trouble is :class:`relaybox.db.DatabaseUnavailable`.
    """

    error_code = "IDEMPOTENCY_STORE_UNAVAILABLE"
