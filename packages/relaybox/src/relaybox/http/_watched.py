"""The body of a request with a key, watched as the application reads it."""

import asyncio
import hashlib
from typing import Final

from starlette.types import Message, Receive

from relaybox.http._errors import BodyTooLarge
from relaybox.idempotency import canonical_json

__all__ = ("WatchedBody",)

#: A larger body counts by its bytes, and is not kept to be compared.
_JSON_BYTES_MAX: Final = 1024 * 1024
#: A larger body is parsed in a thread: 1 MiB takes some 20 ms.
_INLINE_BYTES_MAX: Final = 32 * 1024


class WatchedBody:
    """Stands in for the server's ``receive``, and digests what passes."""

    def __init__(self, receive: Receive, *, is_json: bool) -> None:
        self._receive = receive
        self._digest = hashlib.sha256()
        #: What has passed; None for a body that counts by its bytes.
        self._json = bytearray() if is_json else None
        self._by_value: bytes | None = None
        self._ahead: list[Message] = []
        #: Whether all of it has passed.
        self.whole = False

    async def receive(self) -> Message:
        """The server's ``receive``, watched."""
        if self._ahead:
            return self._ahead.pop(0)
        message = await self._receive()
        if message["type"] == "http.request":
            self._note(message.get("body", b""))
            self.whole = not message.get("more_body", False)
        return message

    def _note(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        if self._json is not None:
            self._json += chunk
            if len(self._json) > _JSON_BYTES_MAX:
                self._json = None

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

    async def digest_by_value(self) -> bytes | None:
        """SHA-256 of the JSON that has passed, see :func:`canonical_json`; None if it counts by its bytes."""
        if self._json is None or self._by_value is not None:
            return self._by_value
        body = bytes(self._json)
        if len(body) > _INLINE_BYTES_MAX:
            canonical = await asyncio.to_thread(canonical_json, body)
        else:
            canonical = canonical_json(body)
        self._by_value = None if canonical is None else hashlib.sha256(canonical).digest()
        return self._by_value
