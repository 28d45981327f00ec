"""The demo as a client of the event stream, which it resumes where it was cut."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx2
from pydantic_core import from_json

from backend.demo._journal import Journal

__all__ = ("follow",)

_PAUSE_S: Final = 0.2
#: The server sends a comment every 15 s; longer silence means that the connection is dead.
_SILENCE_S: Final = 40.0


async def follow(client: httpx2.AsyncClient, path: str, journal: Journal) -> None:
    """Write the stream at *path* to *journal* until cancelled; every end is followed by a resumption."""
    last: int | None = None
    while True:
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        timeout = httpx2.Timeout(10.0, read=_SILENCE_S)
        try:
            async with client.stream("GET", path, headers=headers, timeout=timeout) as response:
                if response.is_success:
                    async for version, kind, data in _events(response.aiter_lines()):
                        last = version or last
                        _note(journal, version, kind, data)
        except httpx2.TransportError:
            pass  # the API is being started again; nothing is lost, the next connection resumes
        await asyncio.sleep(_PAUSE_S)


def _note(journal: Journal, version: int | None, kind: str, data: Any) -> None:
    match kind:
        case "task.progress":
            journal.advance(data["progress"])
        case "reset":
            journal.faults.append(f"the event stream was reset at version {data['version']}")
        case _ if version is not None:
            journal.tell(version, data)
        case _:
            journal.faults.append(f"the event stream gave {kind} without an id")


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[int | None, str, Any]]:
    """Id, type and data of each event (WHATWG HTML, section 9.2); what an event is not is left out."""
    fields: dict[str, str] = {}
    async for line in lines:
        name, _, value = line.partition(": ")
        if line and name in ("id", "event", "data"):
            fields[name] = value
        elif not line:
            if "data" in fields:
                version = int(fields["id"]) if "id" in fields else None
                yield version, fields["event"], from_json(fields["data"])
            fields = {}
