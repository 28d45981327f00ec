"""Somebody in the story, over HTTP."""

from typing import Any, Final
from uuid import UUID, uuid4

import httpx2
from relaybox.http.client import IdempotentClient, ResponseUnknown

from backend.demo._expect import expect, require
from backend.demo._timeline import StepMissed

__all__ = ("PREFIX", "Member")

PREFIX: Final = "/api/v1"
#: More than fit into anybody's patience, which ends the tries.
_ATTEMPTS_MAX: Final = 1_000


class Member:
    """One person's client. What they ask for is sent again, under the same key, until its answer is known.

    All that members ask for has one correlation id, so that the whole story is one chain of events.
    """

    def __init__(
        self, client: httpx2.AsyncClient, name: str, *, correlation_id: UUID, patience_s: float
    ) -> None:
        """*client* has their token; *patience_s* is for each answer, while the API is away."""
        self.client = client
        self.name = name
        self._headers = {"X-Correlation-ID": str(correlation_id)}
        self._sender = IdempotentClient(client, attempts_max=_ATTEMPTS_MAX, total_s_max=patience_s)

    def carry(self, share_token: str) -> None:
        """Show the share token of a link with all that is asked for from now on."""
        self._headers["X-Share-Token"] = share_token

    async def ask(
        self,
        what: str,
        method: str,
        path: str,
        status: int,
        body: Any = None,
        *,
        match: int | None = None,
        key: str | None = None,
    ) -> httpx2.Response:
        """The answer, which has *status*.

        *body* is JSON, or a PGN file's bytes; *match* the version that a change is meant for.

        Raises:
            StepMissed: it has another one, or there was none; *what* names the step.
        """
        headers = dict(self._headers)
        if match is not None:
            headers["If-Match"] = f'"{match}"'
        parts: dict[str, Any] = {"json": body}
        if isinstance(body, bytes):
            parts = {"content": body}
            headers["Content-Type"] = "application/x-chess-pgn"
        try:
            answer = await self._sender.request(
                method, PREFIX + path, key=key or str(uuid4()), headers=headers, **parts
            )
        except ResponseUnknown as error:
            raise StepMissed(f"{what}: {error}") from error
        return expect(answer, what, status)

    async def get(self, what: str, path: str) -> Any:
        """The JSON at *path*.

        Raises:
            StepMissed: there is none.
        """
        return (await self.ask(what, "GET", path, 200)).json()

    async def refused(
        self,
        what: str,
        method: str,
        path: str,
        status: int,
        error_code: str,
        body: Any = None,
        *,
        match: int | None = None,
    ) -> None:
        """Ask in vain.

        Raises:
            StepMissed: the answer is another one than that refusal.
        """
        answer = await self.ask(what, method, path, status, body, match=match)
        require(
            answer.json()["error_code"] == error_code, f"{what}: {error_code} expected, got {answer.text}"
        )
