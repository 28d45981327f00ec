"""Where polls of the outbox begin, so that they do not pass the rows that were marked long ago."""

import time
from typing import Final

from relaybox.db import DedicatedConnection, load_queries
from relaybox.relay._ask import fetch_rows

__all__ = ("LowWatermark",)

_SQL: Final = load_queries(__package__ or "relaybox.relay", "relay.sql")
#: Between two steps up, while rows are published.
_ADVANCE_S: Final = 0.25
#: So often a poll begins at the very first row: a row that somebody made PENDING again by SQL is found then.
_FULL_SCAN_S: Final = 10.0


class LowWatermark:
    """The ``seq`` below which no row is PENDING, or can become so by itself.

    A mark leaves a dead entry in the index of PENDING rows. Usually the next poll removes it; while
    anybody holds an old snapshot nobody can, and every poll would pass all of them (5 minutes at
    1,000 events/s: 300,000 entries, 40 ms a poll).

    Invariant (G22): a row that commits late is not below it. Whoever takes a ``seq`` holds a lock on
    the table from before until its transaction ends. So once all have ended that held one when this
    relay had met row n, no row up to n can appear any more, and a later look says which of them are
    left. Rows that wait for an operator count among those: they may become PENDING again.
    """

    def __init__(self) -> None:
        self.seq = 0
        self._seen_seq = 0
        self._writers: frozenset[str] = frozenset()
        self._advance_at_s = 0.0
        self._full_scan_at_s = 0.0

    def __repr__(self) -> str:
        return f"<LowWatermark {self.seq} [{len(self._writers)} writers to end before {self._seen_seq}]>"

    def poll_start(self) -> int:
        """Where the next poll begins: at :attr:`seq`, every 10 s at the very beginning."""
        now = time.monotonic()
        if now < self._full_scan_at_s:
            return self.seq
        self._full_scan_at_s = now + _FULL_SCAN_S
        return 0

    async def advance(self, connection: DedicatedConnection, fetched_seq: int) -> None:
        """Rise, if it is time; *met* is the highest ``seq`` of the rows that were fetched."""
        if fetched_seq <= self._seen_seq or time.monotonic() < self._advance_at_s:
            return
        self._advance_at_s = time.monotonic() + _ADVANCE_S
        rows = await fetch_rows(connection, _SQL["list_writers"])
        writers = frozenset(row["writer"] for row in rows)
        if writers & self._writers:
            return
        # A statement of its own, after the other: its snapshot has what those writers committed.
        [row] = await fetch_rows(connection, _SQL["first_unsettled"], self.seq)
        self.seq = max(self.seq, min(self._seen_seq + 1, row["seq"] or self._seen_seq + 1))
        self._seen_seq, self._writers = fetched_seq, writers
