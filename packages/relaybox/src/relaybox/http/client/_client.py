"""Send a request until its response is known."""

import asyncio
from asyncio import sleep
from datetime import UTC, datetime
from random import random
from time import monotonic
from typing import Any, Final, assert_never
from uuid import uuid4

import httpx2

from relaybox.http.client._decisions import (
    GiveUp,
    Retry,
    http_date,
    is_retryable,
    next_step,
    quoted,
    retry_after_s,
)
from relaybox.http.client._errors import BodyNotRepeatable, KeyUnusable, ResponseUnknown

__all__ = ("IdempotentClient",)

_HEADERS: Final = ("Idempotency-Key", "X-Idempotency-Key")


class IdempotentClient:
    """Send each request under one idempotency key, and repeat the same bytes until the response is known.

    The caller configures and closes *client*: base address, tokens, time-outs. Both clients may be shared.

    Args:
        client: The client that sends.
        attempts_max: Most attempts of one request.
        total_s_max: Most seconds of all attempts of one request and the waits between them.
    """

    def __init__(
        self, client: httpx2.AsyncClient, *, attempts_max: int = 8, total_s_max: float = 60.0
    ) -> None:
        assert attempts_max >= 1
        assert total_s_max > 0
        self._client = client
        self._attempts_max = attempts_max
        self._total_s_max = total_s_max

    async def request(
        self, method: str, url: httpx2.URL | str, *, key: str | None = None, **parts: Any
    ) -> httpx2.Response:
        """Send a request, and return its response: any 2xx, 3xx or 4xx, replayed or not.

        The request is repeated after 500, 502, 503, 504, 429, a 409 ``REQUEST_IN_FLIGHT``, and without a
        response; after ``Retry-After``, else after a random wait that grows up to 8 s. When attempts or time
        run out, the last such response is returned: the outcome is open, and may be asked under the same key.

        Args:
            method: HTTP method.
            url: URL, relative to the client's base address.
            key: Idempotency key; generated for this call if None.
            parts: Arguments of ``httpx2.AsyncClient.build_request``: ``json``, ``content``, ``files``,
                ``params``, ``headers`` and others. The body is encoded once and kept in memory, files
                included; each call generates a multipart boundary unless the header ``Content-Type`` has one.

        Raises:
            ResponseUnknown: The last attempt had no response.
            BodyNotRepeatable: The body comes from a generator or a file.
            KeyUnusable: The key is not 1 to 255 printable ASCII characters without quotes and backslashes,
                or a header has a key too.
        """
        key = str(uuid4()) if key is None else key
        request = await self._built(key, method, url, parts)
        until_s = monotonic() + self._total_s_max
        attempts = 0
        while True:
            attempts += 1
            outcome = await self._attempt(request, until_s - monotonic())
            if isinstance(outcome, httpx2.Response) and not is_retryable(
                outcome.status_code, outcome.content
            ):
                return outcome
            step = next_step(
                attempts,
                attempts_max=self._attempts_max,
                left_s=until_s - monotonic(),
                requested_s=_retry_after_of(outcome) if isinstance(outcome, httpx2.Response) else None,
                chance=random(),  # noqa: S311 - jitter
            )
            match step:
                case Retry(after_s=after_s):
                    await sleep(after_s)
                case GiveUp():
                    if isinstance(outcome, httpx2.Response):
                        return outcome
                    raise ResponseUnknown(key, attempts) from outcome
                case _:
                    assert_never(step)

    async def _built(
        self, key: str, method: str, url: httpx2.URL | str, parts: dict[str, Any]
    ) -> httpx2.Request:
        value = quoted(key)
        if value is None:
            raise KeyUnusable(
                "a key is 1 to 255 printable ASCII characters without quotes and backslashes, as a UUID is"
            )
        request = self._client.build_request(method, url, **parts)
        if any(header in request.headers for header in _HEADERS):
            raise KeyUnusable("give the key as an argument, not as a header of the request or the client")
        # A body in memory can be read both ways; that of a generator or a file, one way and once.
        if not (
            isinstance(request.stream, httpx2.SyncByteStream)
            and isinstance(request.stream, httpx2.AsyncByteStream)
        ):
            raise BodyNotRepeatable
        await request.aread()
        request.headers["Idempotency-Key"] = value
        return request

    async def _attempt(self, request: httpx2.Request, left_s: float) -> httpx2.Response | Exception:
        """Send the request once; return the response, or the error if there is none."""
        try:
            # The client's own time-outs restart with every chunk; this one does not.
            async with asyncio.timeout(left_s):
                return await self._client.send(request)
        except httpx2.UnsupportedProtocol:  # a malformed URL: the request cannot be sent
            raise
        except (httpx2.TransportError, TimeoutError) as error:
            return error


def _retry_after_of(answer: httpx2.Response) -> float | None:
    """Return the seconds of ``Retry-After``; a date is relative to the server's ``Date``."""
    text = answer.headers.get("Retry-After")
    if text is None:
        return None
    now = http_date(answer.headers.get("Date", ""))
    return retry_after_s(text, now or datetime.now(UTC))
