"""Reading PENDING rows and writing down what became of them."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json

from relaybox.db import DedicatedConnection, load_queries
from relaybox.relay._ask import fetch_rows
from relaybox.relay._backoff import GiveUp, Postpone, Retry, next_step
from relaybox.relay._errors import LinkDown, PartitionUnavailable, RelayError
from relaybox.relay._lanes import Lane
from relaybox.relay._messages import Message, message_of
from relaybox.relay._statistics import DELAY_BOUNDS_S, Backlog, Counters
from relaybox.settings import CloudEventsMode

__all__ = (
    "Charge",
    "charge_for",
    "charge_rows",
    "fetch_batch",
    "mark_sent",
    "measure_backlog",
    "multirange_of",
    "requeue_after_outage",
    "seconds_until_due",
    "use_partial_indexes",
)

_SQL: Final = load_queries(__package__ or "relaybox.relay", "relay.sql")
_BATCHES: Final = load_queries(__package__ or "relaybox.relay", "batches.sql")
#: Bytes of payload, as stored, that one batch may hold: bounds this process's memory.
_BATCH_BYTES_MAX: Final = 16 * 2**20
_MESSAGE_CHARS_MAX: Final = 1_000
_BACKLOG_ROWS_MAX: Final = 100_000
#: So many rows from the first PENDING one on are asked whether a FAILED one holds them back.
_DUE_ROWS_MAX: Final = 10_000

#: Postponed rows are published as soon as their partition takes writes; the fallback if a relay misses that.
_PARTITION_PAUSE_S: Final = 600.0

Charge = tuple[Message, RelayError, Retry | Postpone | GiveUp]


async def fetch_batch(
    connection: DedicatedConnection,
    lanes: Sequence[Lane],
    *,
    rows_max: int,
    in_flight: Collection[int],
    start_seq: int = 0,
    cloudevents: CloudEventsMode = "binary",
) -> list[Message]:
    """At most *rows_max* publishable rows of *lanes* by ``seq``, from *floor* on, not *in_flight*."""
    rows: Sequence[Any] = await fetch_rows(
        connection,
        _SQL["fetch_batch"],
        [lane.lane for lane in lanes],
        [lane.epoch for lane in lanes],
        rows_max,
        _BATCH_BYTES_MAX,
        multirange_of(in_flight),
        start_seq,
    )
    return [message_of(row, cloudevents) for row in rows]


async def mark_sent(
    connection: DedicatedConnection,
    seqs: Sequence[int],
    row_ids: Sequence[UUID],
    fences: Iterable[tuple[int, int]],
    counters: Counters,
) -> int:
    """Mark acknowledged rows, *seqs* with *row_ids*, SENT, and count their delays; how many could be marked.

    *fences* are the rows' lanes, each with the epoch at which they were fetched.
    """
    lanes, epochs = _columns(fences)
    marked = 0
    for row in await fetch_rows(
        connection, _SQL["mark_sent"], seqs, lanes, epochs, list(DELAY_BOUNDS_S), row_ids
    ):
        counters.count_published(bucket=row["bucket"], rows=row["rows"], delay_s=row["delay_s"])
        marked += row["rows"]
    return marked


def charge_for(message: Message, fault: RelayError) -> Charge:
    """What follows from *message* failing once more through *fault*."""
    if isinstance(fault, PartitionUnavailable):
        return message, fault, Postpone(after_s=_PARTITION_PAUSE_S)
    return message, fault, next_step(message.attempts + 1)


async def charge_rows(connection: DedicatedConnection, charges: Sequence[Charge]) -> None:
    """Record row faults: attempts, when to try again or FAILED, and why (G24)."""
    lanes, epochs = _columns({(message.lane, message.epoch) for message, _, _ in charges})
    await fetch_rows(
        connection,
        _SQL["charge_rows"],
        [message.seq for message, _, _ in charges],
        lanes,
        epochs,
        [_attempts(charge) for charge in charges],
        [_error_data(charge) for charge in charges],
        [None if isinstance(step, GiveUp) else step.after_s for _, _, step in charges],
        [message.row_id for message, _, _ in charges],
    )


async def requeue_after_outage(connection: DedicatedConnection, lanes: Sequence[Lane]) -> int:
    """Make rows of *lanes* that failed because no broker answered as they were; how many (G25)."""
    numbers, epochs = [lane.lane for lane in lanes], [lane.epoch for lane in lanes]
    return len(await fetch_rows(connection, _BATCHES["requeue_after_outage"], numbers, epochs))


async def seconds_until_due(connection: DedicatedConnection, *, fetched_s: float) -> float | None:
    """Until the first waiting row's next attempt; None without one.

    *fetched_s* seconds ago was the last fetch, which did not see the rows that became due since.
    """
    [row] = await fetch_rows(connection, _SQL["next_due"], fetched_s)
    return row["due_s"]


async def measure_backlog(connection: DedicatedConnection, counters: Counters, start_seq: int = 0) -> None:
    """Count what waits, of all lanes; nothing below *floor* does."""
    [row] = await fetch_rows(connection, _SQL["measure_backlog"], _BACKLOG_ROWS_MAX, start_seq, _DUE_ROWS_MAX)
    oldest_s = row["oldest_s"] or 0.0
    # Where all that were asked are held back nobody knows of the next; to be called late is the safe side.
    unknown_s = oldest_s if row["pending"] > _DUE_ROWS_MAX else 0.0
    counters.backlog = Backlog(
        pending=row["pending"],
        retrying_row=row["retrying"] - row["retrying_link"],
        retrying_link=row["retrying_link"],
        failed_row=row["failed"] - row["failed_link"],
        failed_link=row["failed_link"],
        skipped=row["skipped"],
        keys_blocked=row["keys_blocked"],
        oldest_pending_s=oldest_s,
        oldest_due_s=unknown_s if row["oldest_due_s"] is None else row["oldest_due_s"],
        lanes=row["lanes"],
        lanes_faulty=row["lanes_faulty"],
        history_changed_at_s=row["history_changed_at_s"],
    )


async def use_partial_indexes(connection: DedicatedConnection) -> None:
    """Keep the plans of this connection on the outbox's partial indexes."""
    await fetch_rows(connection, _SQL["use_partial_indexes"])


def multirange_of(seqs: Collection[int]) -> str:
    """*seqs* as the text of an ``int8multirange``: a backlog's rows are a few runs, not 10,000 numbers."""
    if not seqs:
        return "{}"
    first, last = min(seqs), max(seqs)
    if last - first + 1 == len(set(seqs)):  # a backlog's usual case, three times as fast
        return f"{{[{first},{last}]}}"
    runs: list[tuple[int, int]] = []
    for seq in sorted(seqs):
        if runs and runs[-1][1] == seq - 1:
            runs[-1] = (runs[-1][0], seq)
        else:
            runs.append((seq, seq))
    return "{" + ",".join(f"[{first},{last}]" for first, last in runs) + "}"


def _columns(fences: Iterable[tuple[int, int]]) -> tuple[list[int], list[int]]:
    pairs = sorted(fences)
    return [lane for lane, _ in pairs], [epoch for _, epoch in pairs]


def _attempts(charge: Charge) -> int:
    message, _, step = charge
    return message.attempts if isinstance(step, Postpone) else message.attempts + 1


def _error_data(charge: Charge) -> str:
    _, fault, _ = charge
    return to_json(
        {
            "reason": "link" if isinstance(fault, LinkDown) else "row",
            "class": type(fault).__name__,
            "message": str(fault)[:_MESSAGE_CHARS_MAX],
            "attempts": _attempts(charge),
        }
    ).decode()
