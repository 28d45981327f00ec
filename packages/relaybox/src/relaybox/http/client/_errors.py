"""What can go wrong on the side of the caller. No message holds a key: keys may be personal data.

::

    RelayboxError
    └── ClientError
        ├── ResponseUnknown       sent, and nobody knows what became of it
        ├── BodyNotRepeatable   refused before it was sent
        └── KeyUnusable         refused before it was sent
"""

from relaybox.errors import RelayboxError

__all__ = ("BodyNotRepeatable", "ClientError", "KeyUnusable", "ResponseUnknown")


class ClientError(RelayboxError):
    """Base of the errors of this package; answers of the server are no errors here."""

    error_code = "CLIENT_ERROR"


class ResponseUnknown(ClientError):
    """Raised when the last attempt brought no answer: the request may have been executed, or not.

    Send the same body again with :attr:`key`, later or after a restart, while the server still remembers
    it (24 h unless it says otherwise). With another key the wish may be executed twice.
    """

    error_code = "ANSWER_UNKNOWN"

    def __init__(self, key: str, attempts: int) -> None:
        super().__init__(
            f"no answer to attempt {attempts}, the last: it is not known whether the request was executed; "
            "send the same again with the key of this error"
        )
        #: What all attempts were sent with.
        self.key = key
        #: How many there were.
        self.attempts = attempts


class BodyNotRepeatable(ClientError):
    """Raised for a body that a generator or a file gives: it can be sent once only; read it first."""

    error_code = "BODY_NOT_REPEATABLE"

    def __init__(self) -> None:
        super().__init__("a body that may be sent again must be in memory: read the file or generator first")


class KeyUnusable(ClientError):
    """Raised for a key that cannot be sent as it is, or that is given twice; the message says which."""

    error_code = "KEY_UNUSABLE"
