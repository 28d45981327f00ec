"""When to try again. Pure: no clock, no I/O."""

from dataclasses import dataclass
from typing import Final

__all__ = ("GiveUp", "Postpone", "Retry", "link_pause_s", "next_batch_rows", "next_step")

#: Contract, section 4: a row is retried after 1 s, 2 s, 4 s, and FAILED after the third retry.
_RETRIES_S: Final = (1.0, 2.0, 4.0)
_LINK_PAUSE_S: Final = 0.1
_LINK_PAUSE_S_MAX: Final = 2.0
#: A backlog is taken in batches up to this many times RELAY_BATCH_SIZE, and up to this many rows: round
#: trips to both servers for every 100 rows drain slower than those for every 5,000. With more the relay
#: would take more than 150 MB.
_BACKLOG_FACTOR: Final = 50
_BACKLOG_ROWS_MAX: Final = 5_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Try the row again after *after_s* seconds; its key waits until then."""

    after_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveUp:
    """Mark the row FAILED; its key waits for an operator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Postpone:
    """Try the row again after *after_s* seconds and charge no attempt; its key waits until then."""

    after_s: float


def next_step(attempts: int) -> Retry | GiveUp:
    """What follows after *attempts* failures through the row's own fault (1 for the first)."""
    assert attempts >= 1
    return Retry(after_s=_RETRIES_S[attempts - 1]) if attempts <= len(_RETRIES_S) else GiveUp()


def link_pause_s(failures: int) -> float:
    """Seconds to wait after *failures* failures in a row to reach a server; doubles up to 2 s."""
    assert failures >= 1
    return min(_LINK_PAUSE_S * 2 ** min(failures - 1, 10), _LINK_PAUSE_S_MAX)


def next_batch_rows(limit: int, fetched: int, batch_size: int) -> int:
    """How many rows to ask for next: twice as many while batches come back full, *batch_size* else."""
    if fetched < limit:
        return batch_size
    return max(batch_size, min(2 * limit, _BACKLOG_FACTOR * batch_size, _BACKLOG_ROWS_MAX))
