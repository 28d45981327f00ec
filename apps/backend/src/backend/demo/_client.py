"""The HTTP client of one user in the demo."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID, uuid4

import httpx2
from relaybox.http.client import IdempotentClient, ResponseUnknown

from backend.demo._timeline import StepMissed, require

__all__ = ("PREFIX", "Client", "require_status")

PREFIX: Final = "/api/v1"
_POLL_S: Final = 0.1
#: Maximum number of attempts for one request; so high that the time limit is always reached before.
_ATTEMPTS_MAX: Final = 1_000
_TEXT_CHARS_MAX: Final = 500


def require_status(response: httpx2.Response, step: str, *statuses: int) -> httpx2.Response:
    """Return *response* if it has one of *statuses*.

    Raises:
        StepMissed: The status is another; the message names *step* and the error of the response.
    """
    expected = " or ".join(map(str, statuses))
    problem = f"{step}: {expected} expected, got {response.status_code} {_error_text(response)}"
    require(response.status_code in statuses, problem)
    return response


class Client:
    """Sends the requests of one user, each with an idempotency key, and repeats unanswered requests.

    A request is repeated with its key if there was no response, or if the status of the response allows a
    repetition, such as 503 (see :class:`IdempotentClient`). All requests have one correlation id, so that all
    events of the demo can be found by this id.
    """

    def __init__(self, http: httpx2.AsyncClient, name: str, *, correlation_id: UUID, limit_s: float) -> None:
        """Create the client of the user *name*.

        Args:
            http: Sends the requests, with the token of the user.
            name: The user id of the token; for a user without a token, the name in the output.
            correlation_id: The correlation id of all requests.
            limit_s: Seconds to wait for a response, and for a result in :meth:`poll`.
        """
        self.http = http
        self.name = name
        self.correlation_id = correlation_id
        self.limit_s = limit_s
        self.headers = {"X-Correlation-ID": str(correlation_id)}
        self._sender = IdempotentClient(http, attempts_max=_ATTEMPTS_MAX, total_s_max=limit_s)

    async def send(
        self,
        step: str,
        method: str,
        path: str,
        *statuses: int,
        body: Any = None,
        version: int | None = None,
        key: str | None = None,
    ) -> httpx2.Response:
        """Send a request, and return its response, which has one of *statuses*.

        Args:
            step: The name of this request in error messages.
            method: The HTTP method.
            path: The path after ``/api/v1``, with the query.
            statuses: The expected status codes.
            body: An object to send as JSON, or the bytes of a PGN file; None for no body.
            version: The version to send in ``If-Match``; None for no such header.
            key: The idempotency key; None for a new key.

        Raises:
            StepMissed: The response has another status, or there was no response within the time limit.
        """
        headers = dict(self.headers)
        if version is not None:
            headers["If-Match"] = f'"{version}"'
        content: dict[str, Any] = {"json": body}
        if isinstance(body, bytes):
            content = {"content": body}
            headers["Content-Type"] = "application/x-chess-pgn"
        try:
            response = await self._sender.request(
                method, PREFIX + path, key=key or str(uuid4()), headers=headers, **content
            )
        except ResponseUnknown as error:
            raise StepMissed(f"{step}: {error}") from error
        return require_status(response, step, *statuses)

    async def get(self, step: str, path: str) -> Any:
        """Return the JSON at *path*.

        Raises:
            StepMissed: The response is not 200.
        """
        return (await self.send(step, "GET", path, 200)).json()

    async def send_refused(
        self, step: str, method: str, path: str, status: int, error_code: str, **options: Any
    ) -> None:
        """Send a request that must be refused with *status* and *error_code*; *options*: see :meth:`send`.

        Raises:
            StepMissed: The response has another status or error code.
        """
        response = await self.send(step, method, path, status, **options)
        found = response.json()["error_code"]
        require(found == error_code, f"{step}: {error_code} expected, got {response.text}")

    async def poll(self, step: str, path: str, is_done: Callable[[Any], bool]) -> Any:
        """Read the JSON at *path* repeatedly, and return the first for which *is_done* returns True.

        Raises:
            StepMissed: *is_done* returned False for all responses until the time limit.
        """
        deadline = time.monotonic() + self.limit_s
        while not is_done(found := await self.get(step, path)):
            problem = f"{step}: not done within {self.limit_s:g} s; the last response was {found}"
            require(time.monotonic() < deadline, problem)
            await asyncio.sleep(_POLL_S)
        return found


def _error_text(response: httpx2.Response) -> str:
    """Return error code and message of *response*; for a body of another form, its first 500 characters."""
    try:
        body = response.json()
        return f"{body['error_code']}: {body['message']}"
    except (ValueError, TypeError, KeyError):
        return response.text[:_TEXT_CHARS_MAX]
