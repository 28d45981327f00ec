"""The writer of the story: sends commands and finds out what became of those whose answer was lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

import httpx2

from backend.demo._expect import expect
from backend.demo._timeline import StepMissed

__all__ = ("Sent", "Writer")

_PAUSE_S: Final = 0.1
_PAIRS_MAX: Final = 5
_NOT_NOW: Final = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """A command that was taken."""

    #: Null when its answer was lost and the session's version says that it was taken.
    command_id: UUID | None
    #: 200 or 202; null with the answer.
    status: int | None
    #: Times it was sent.
    tries: int = 1


class Writer:
    """One session's client. Every request is tried again while the API is away, within *patience_s* seconds.

    All commands carry one correlation id, so that the whole story is one chain of events.
    """

    def __init__(self, client: httpx2.AsyncClient, sessions: str, *, patience_s: float) -> None:
        self._client = client
        self._sessions = sessions
        self._patience_s = patience_s
        self.correlation_id = uuid4()
        self.session_id = ""

    @property
    def path(self) -> str:
        """Where the session is."""
        return f"{self._sessions}/{self.session_id}"

    async def create(self) -> None:
        """Begin a session; one whose answer was lost stays behind unused."""
        answer = await self._until_answered("create a session", "POST", self._sessions, {})
        self.session_id = expect(answer, "create a session", 201).json()["session_id"]

    async def state(self) -> Mapping[str, Any]:
        """The session's state."""
        return await self.get("read the state", f"{self.path}/state")

    async def get(self, what: str, path: str) -> Mapping[str, Any]:
        """The JSON at *path*."""
        return expect(await self._until_answered(what, "GET", path), what, 200).json()

    async def send(self, command_type: str, **payload: Any) -> Sent:
        """Have a command taken exactly once.

        ``expected_version`` makes it safe to send it again when the answer was lost: the second one
        is refused if the first was taken, even if it is only taken after the state was read.
        """
        version = (await self.state())["version"]
        body = {"command_type": command_type, "payload": payload, "expected_version": version}
        tries = 0
        async for answer in self._answers(command_type, "POST", f"{self.path}/commands", body):
            tries += 1
            refused_as_taken = answer is not None and answer.status_code == 409 and tries > 1
            if answer is not None and not refused_as_taken:
                accepted = expect(answer, command_type, 200, 202).json()
                command_id = UUID(accepted["command_id"])
                return Sent(command_id=command_id, status=answer.status_code, tries=tries)
            if refused_as_taken or (await self.state())["version"] > version:
                return Sent(command_id=None, status=None, tries=tries)
        raise AssertionError("answers end by an error")

    async def send_twice(self, command_type: str, **payload: Any) -> tuple[UUID, UUID]:
        """Send the same asynchronous command twice at once: ids of the one taken and of the 409's.

        The agent may be faster than the second one is read, and a crash may swallow an answer; then
        the session is awaited and the pair sent again, five times at most.
        """
        body = {"command_type": command_type, "payload": payload}
        for _ in range(_PAIRS_MAX):
            pair = (self._once("POST", f"{self.path}/commands", body) for _ in range(2))
            answers = {answer.status_code: answer for answer in await asyncio.gather(*pair) if answer}
            if answers.keys() == {202, 409}:
                taken, refused = expect(answers[202], command_type, 202).json(), answers[409].json()
                if refused["error_code"] != "DUPLICATE_COMMAND":
                    raise StepMissed(f"the second {command_type}: DUPLICATE_COMMAND expected, got {refused}")
                return UUID(taken["command_id"]), UUID(refused["duplicate_command_id"])
            await self.settled(command_type)
        raise StepMissed(f"{command_type} twice at once: no 202 with a 409 in {_PAIRS_MAX} tries")

    async def task_of(self, command_id: UUID) -> str:
        """The task that an agent made of a command, as soon as there is one."""
        deadline = time.monotonic() + self._patience_s
        path = f"{self.path}/commands/{command_id}"
        while not (task_id := (await self.get("read the command", path))["task_id"]):
            if time.monotonic() > deadline:
                raise StepMissed(f"no agent took the request within {self._patience_s:g} s")
            await asyncio.sleep(_PAUSE_S)
        return task_id

    async def settled(self, what: str) -> None:
        """Return once nothing is pending."""
        deadline = time.monotonic() + self._patience_s
        while (await self.state())["is_pending"]:
            if time.monotonic() > deadline:
                raise StepMissed(f"{what}: still pending after {self._patience_s:g} s")
            await asyncio.sleep(_PAUSE_S)

    async def _until_answered(self, what: str, method: str, path: str, body: Any = None) -> httpx2.Response:
        async for answer in self._answers(what, method, path, body):
            if answer is not None:
                return answer
        raise AssertionError("answers end by an error")

    async def _answers(
        self, what: str, method: str, path: str, body: Any = None
    ) -> AsyncIterator[httpx2.Response | None]:
        """Send again and again, until the caller is content; null for an answer that never came."""
        deadline = time.monotonic() + self._patience_s
        while time.monotonic() < deadline:
            answer = await self._once(method, path, body)
            yield answer
            await asyncio.sleep(_PAUSE_S)
        raise StepMissed(f"{what}: the API gave no answer within {self._patience_s:g} s")

    async def _once(self, method: str, path: str, body: Any) -> httpx2.Response | None:
        headers = {"X-Correlation-ID": str(self.correlation_id)}
        try:
            answer = await self._client.request(method, path, json=body, headers=headers)
        except httpx2.TransportError:
            return None
        return None if answer.status_code in _NOT_NOW else answer
