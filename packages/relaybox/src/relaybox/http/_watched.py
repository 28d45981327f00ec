"""The body of a request with a key, watched as the application reads it."""

import hashlib

from starlette.types import Message, Receive

from relaybox.http._errors import BodyTooLarge

__all__ = ("WatchedBody",)


class WatchedBody:
    """Stands in for the server's ``receive``, and digests what passes."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._digest = hashlib.sha256()
        self._ahead: list[Message] = []
        #: Whether all of it has passed.
        self.whole = False

    async def receive(self) -> Message:
        """The server's ``receive``, watched."""
        if self._ahead:
            return self._ahead.pop(0)
        message = await self._receive()
        if message["type"] == "http.request":
            self._digest.update(message.get("body", b""))
            self.whole = not message.get("more_body", False)
        return message

    async def read_ahead(self, bytes_max: int) -> bool:
        """Read the body, which the application gets afterwards; False if the client has gone.

        Raises:
            BodyTooLarge: it has more than *bytes_max*.
        """
        read: list[Message] = []
        taken_bytes = 0
        while not self.whole:
            message = await self.receive()
            read.append(message)
            if message["type"] != "http.request":
                break
            taken_bytes += len(message.get("body", b""))
            if taken_bytes > bytes_max:
                raise BodyTooLarge(bytes_max)
        self._ahead = read
        return self.whole

    def digest(self) -> bytes:
        """SHA-256 of what has passed."""
        return self._digest.digest()
