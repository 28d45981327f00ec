"""What was sent and what was answered, kept outside the system under test."""

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
    """What a writer knows about what it sent."""

    ACKNOWLEDGED = "acknowledged"  # COMMIT was answered
    REFUSED = "refused"  # the server said no, or the writer rolled back
    UNKNOWN = "unknown"  # no answer: either is possible


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One event as it is sent: of a key, the version after the one before."""

    event_id: UUID
    key: str
    version: int
    #: Not publishable on purpose: it ends FAILED, and only its key waits.
    poison: bool = False


class Journal:
    """Every event that was sent, with the answer; each line is in the file before the statement leaves."""

    def __init__(self, path: Path) -> None:
        """Begin the journal in the file *path*."""
        self._file = path.open("wb", buffering=0)
        #: By the event's id; UNKNOWN until the answer comes.
        self.results: dict[UUID, CommitResult] = {}
        #: ``time.monotonic()`` by the event's id.
        self.sent_s: dict[UUID, float] = {}
        self.result_s: dict[UUID, float] = {}
        #: Ids of the events that are not publishable.
        self.poison: set[UUID] = set()

    def record_sent(self, events: Sequence[Event]) -> None:
        """Note that *events* are about to be sent, in one transaction."""
        rows = [(str(one.event_id), one.key, one.version, one.poison) for one in events]
        self._file.write(to_json({"sending": rows}) + _NEWLINE)
        now_s = time.monotonic()
        for one in events:
            self.results[one.event_id] = CommitResult.UNKNOWN
            self.sent_s[one.event_id] = now_s
            if one.poison:
                self.poison.add(one.event_id)

    def record_result(self, events: Sequence[Event], answer: CommitResult) -> None:
        """Note what became of *events*, as far as the writer knows."""
        self._file.write(to_json({answer: [str(one.event_id) for one in events]}) + _NEWLINE)
        now_s = time.monotonic()
        for one in events:
            self.results[one.event_id] = answer
            self.result_s[one.event_id] = now_s

    def undecided_between(self, began_s: float, ended_s: float) -> Iterator[UUID]:
        """Yield the events that were sent before *ended_s* and answered after *began_s*, or not yet."""
        for event_id, sent_s in self.sent_s.items():
            if sent_s <= ended_s and self.result_s.get(event_id, ended_s) >= began_s:
                yield event_id

    def counts(self) -> Counter[CommitResult]:
        """How many events got which answer."""
        return Counter(self.results.values())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Timeline:
    """What happened when, for whoever looks for the cause of a violation; seconds since its making."""

    def __init__(self, path: Path) -> None:
        """Begin it in the file *path*."""
        self._file = path.open("w", buffering=1)
        self._began_s = time.monotonic()
        self._lock = threading.Lock()

    def now_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began_s

    def note(self, text: str) -> None:
        """Write down *text* with the time of day and the seconds since the beginning; from any thread."""
        clock = time.strftime("%H:%M:%S", time.gmtime()) + f".{time.time() % 1 * 1000:03.0f}"
        with self._lock:
            self._file.write(f"{clock}Z {self.now_s():9.3f} {text}\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
