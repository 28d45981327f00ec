"""Record what writers sent and the results of their commits, outside the system under test."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final
from uuid import UUID

from pydantic_core import to_json

_NEWLINE: Final = b"\n"


class CommitResult(StrEnum):
    """What a writer knows about the commit of its events."""

    ACKNOWLEDGED = "acknowledged"  # COMMIT returned
    REFUSED = "refused"  # the server refused, or the writer rolled back
    UNKNOWN = "unknown"  # no response: committed or not


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One event of a key; versions are consecutive."""

    event_id: UUID
    key: str
    version: int
    #: Unpublishable on purpose: ends FAILED and blocks only its key.
    poison: bool = False


class Journal:
    """All events and their results; each line is in the file before its statement is sent."""

    def __init__(self, path: Path) -> None:
        """Create the journal in the file *path*."""
        self._file = path.open("wb", buffering=0)
        #: By event id; UNKNOWN until the response.
        self.results: dict[UUID, CommitResult] = {}
        #: ``time.monotonic()`` by event id.
        self.sent_s: dict[UUID, float] = {}
        self.result_s: dict[UUID, float] = {}
        #: Ids of the unpublishable events.
        self.poison: set[UUID] = set()

    def record_sent(self, events: Sequence[Event]) -> None:
        """Record *events* before they are sent in one transaction."""
        rows = [(str(one.event_id), one.key, one.version, one.poison) for one in events]
        self._file.write(to_json({"sending": rows}) + _NEWLINE)
        now_s = time.monotonic()
        for one in events:
            self.results[one.event_id] = CommitResult.UNKNOWN
            self.sent_s[one.event_id] = now_s
            if one.poison:
                self.poison.add(one.event_id)

    def record_result(self, events: Sequence[Event], answer: CommitResult) -> None:
        """Record the result of the transaction with *events*."""
        self._file.write(to_json({answer: [str(one.event_id) for one in events]}) + _NEWLINE)
        now_s = time.monotonic()
        for one in events:
            self.results[one.event_id] = answer
            self.result_s[one.event_id] = now_s

    def undecided_between(self, began_s: float, ended_s: float) -> Iterator[UUID]:
        """Yield the events sent before *ended_s* without a result before *began_s*."""
        for event_id, sent_s in self.sent_s.items():
            if sent_s <= ended_s and self.result_s.get(event_id, ended_s) >= began_s:
                yield event_id

    def counts(self) -> Counter[CommitResult]:
        """Return the number of events by result."""
        return Counter(self.results.values())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Timeline:
    """A log of faults and results with seconds since its creation, to find causes of violations."""

    def __init__(self, path: Path) -> None:
        """Create the timeline in the file *path*."""
        self._file = path.open("w", buffering=1)
        self._began_s = time.monotonic()
        self._lock = threading.Lock()

    def now_s(self) -> float:
        """Return the seconds since the creation."""
        return time.monotonic() - self._began_s

    def note(self, text: str) -> None:
        """Write *text* with the time of day and the seconds since the creation; thread-safe."""
        clock = time.strftime("%H:%M:%S", time.gmtime()) + f".{time.time() % 1 * 1000:03.0f}"
        with self._lock:
            self._file.write(f"{clock}Z {self.now_s():9.3f} {text}\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
