"""Define the errors of the client. No message contains a key, which may be personal data.

::

    RelayboxError
    └── ClientError
        ├── ResponseUnknown     sent, without a response to the last attempt
        ├── BodyNotRepeatable   not sent: the body can be read only once
        └── KeyUnusable         not sent: the key is malformed or given twice
"""

from relaybox.errors import RelayboxError

__all__ = ("BodyNotRepeatable", "ClientError", "KeyUnusable", "ResponseUnknown")


class ClientError(RelayboxError):
    """Base of the errors of this package; error responses of the server are returned, not raised."""

    error_code = "CLIENT_ERROR"


class ResponseUnknown(ClientError):
    """Raised when the last attempt had no response: the request may have been executed or not.

    To find out, send the same body again with :attr:`key` while the server stores the key (24 h by default),
    for example after a restart of the client. With another key the request may be executed twice.
    """

    error_code = "ANSWER_UNKNOWN"

    def __init__(self, key: str, attempts: int) -> None:
        super().__init__(
            f"no usable response to {attempts} attempts; the request may have been executed or not: "
            "send the same body again with the key in the attribute 'key' of this error"
        )
        #: The idempotency key of all attempts.
        self.key = key
        #: Number of attempts.
        self.attempts = attempts


class BodyNotRepeatable(ClientError):
    """Raised for a body from a generator or a file, which can be sent only once."""

    error_code = "BODY_NOT_REPEATABLE"

    def __init__(self) -> None:
        super().__init__(
            "the body comes from a generator or a file and cannot be sent again; read it into memory first"
        )


class KeyUnusable(ClientError):
    """Raised when the key is malformed, or a header contains a key; the message says which."""

    error_code = "KEY_UNUSABLE"
