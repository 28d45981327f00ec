"""The errors of the client. No message contains a key, which may be personal data.

::

    RelayboxError
    └── ClientError
        ├── ResponseUnknown       sent, but its outcome is unknown
        ├── BodyNotRepeatable   refused before it was sent
        └── KeyUnusable         refused before it was sent
"""

from relaybox.errors import RelayboxError

__all__ = ("BodyNotRepeatable", "ClientError", "KeyUnusable", "ResponseUnknown")


class ClientError(RelayboxError):
    """Base of the errors of this package; error responses of the server are returned, not raised."""

    error_code = "CLIENT_ERROR"


class ResponseUnknown(ClientError):
    """Raised when the last attempt had no response: the request may have been executed, or not.

    Send the same body again with :attr:`key`, later or after a restart, while the server stores the key (24 h
    by default). With another key the request may be executed twice.
    """

    error_code = "ANSWER_UNKNOWN"

    def __init__(self, key: str, attempts: int) -> None:
        super().__init__(
            f"no response to attempt {attempts}, the last: the request may have been executed or not; "
            "repeat it with the key of this error"
        )
        #: The idempotency key of all attempts.
        self.key = key
        #: Number of attempts.
        self.attempts = attempts


class BodyNotRepeatable(ClientError):
    """Raised for a body from a generator or a file, which can be sent only once; read it first."""

    error_code = "BODY_NOT_REPEATABLE"

    def __init__(self) -> None:
        super().__init__(
            "a body must be in memory, as it may be sent again: read the file or generator first"
        )


class KeyUnusable(ClientError):
    """Raised for a key that is malformed or given twice; the message says which."""

    error_code = "KEY_UNUSABLE"
