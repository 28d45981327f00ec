"""Send a request repeatedly until there is a final response."""

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
    """Send each request with one idempotency key, and repeat the same bytes until there is a final response.

    An object may be used by several tasks at the same time.

    Args:
        client: The httpx2 client that sends the requests; the caller configures its base URL, tokens and
            time-outs, and closes it.
        attempts_max: Maximum number of attempts for one request.
        total_s_max: Maximum time in seconds for all attempts of one request and the waits between them.
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
        """Send a request, and return its final response, replayed or not.

        The request is repeated after the statuses 500, 502, 503, 504 and 429, after 409
        ``REQUEST_IN_FLIGHT``, and if there was no response. Before a repetition the client waits for the time
        in ``Retry-After``, or for a random time of up to 8 s without this header. After the last attempt, a
        response with one of these statuses is returned too. The request may then have been executed or not;
        repeat it later with the same key to find out.

        Args:
            method: HTTP method.
            url: URL, absolute or relative to the base URL of the httpx2 client.
            key: Idempotency key; generated for this call if None.
            parts: Arguments of ``httpx2.AsyncClient.build_request``: ``json``, ``content``, ``files``,
                ``params``, ``headers`` and others. The body, with its files, is encoded once and kept in
                memory. To repeat a multipart request in a later call, set its boundary in ``Content-Type``:
                by default each call generates a new boundary. The bodies of the two calls would differ, and
                the server would refuse the second call (``IDEMPOTENCY_KEY_REUSED``).

        Raises:
            ResponseUnknown: The last attempt had no response.
            BodyNotRepeatable: The body comes from a generator or a file.
            KeyUnusable: *key* is not 1 to 255 printable ASCII characters without quotes and backslashes, or
                the request or the client sets the header ``Idempotency-Key`` or ``X-Idempotency-Key``.
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
                "the key must be 1 to 255 printable ASCII characters without quotes and backslashes"
            )
        request = self._client.build_request(method, url, **parts)
        if any(header in request.headers for header in _HEADERS):
            names = " or ".join(_HEADERS)
            raise KeyUnusable(f"the request or the client sets the header {names}; pass the key as key=")
        # The stream of a body in memory is of both kinds, synchronous and asynchronous. A stream of only one
        # kind comes from a generator or a file, and can be read once.
        if not (
            isinstance(request.stream, httpx2.SyncByteStream)
            and isinstance(request.stream, httpx2.AsyncByteStream)
        ):
            raise BodyNotRepeatable
        await request.aread()
        request.headers["Idempotency-Key"] = value
        return request

    async def _attempt(self, request: httpx2.Request, left_s: float) -> httpx2.Response | Exception:
        """Send the request once, for at most *left_s* seconds; return the response, or the error."""
        try:
            # A limit for the whole attempt: the time-outs of the httpx2 client begin again with each chunk.
            async with asyncio.timeout(left_s):
                return await self._client.send(request)
        except httpx2.UnsupportedProtocol:  # a malformed URL: the request cannot be sent
            raise
        # The request may have been executed, also if its response cannot be decoded.
        except (httpx2.RequestError, TimeoutError) as error:
            return error


def _retry_after_of(response: httpx2.Response) -> float | None:
    """Return the seconds that ``Retry-After`` requests; None if it is missing or malformed.

    A date is counted from the header ``Date``, or without ``Date`` from now.
    """
    text = response.headers.get("Retry-After")
    if text is None:
        return None
    now = http_date(response.headers.get("Date", ""))
    return retry_after_s(text, now or datetime.now(UTC))
