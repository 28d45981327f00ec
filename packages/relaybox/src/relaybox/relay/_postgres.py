"""The relay in PostgreSQL: its connections, the rows of the outbox, and the low watermark of polls."""

import time
from collections.abc import AsyncGenerator, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json

from relaybox.db import (
    INSUFFICIENT_PRIVILEGE,
    Database,
    DatabaseRefused,
    DatabaseUnavailable,
    DedicatedConnection,
    load_queries,
    map_service_errors,
    sqlstate_of,
)
from relaybox.relay._backoff import GiveUp, Postpone, Retry, next_step
from relaybox.relay._errors import HistoryChanged, LinkDown, PartitionUnavailable, RelayError
from relaybox.relay._messages import Message, message_of
from relaybox.relay._statistics import DELAY_BOUNDS_S, Backlog, Counters
from relaybox.settings import CloudEventsMode

__all__ = (
    "Charge",
    "Connections",
    "Lane",
    "LowWatermark",
    "charge_for",
    "charge_rows",
    "connected",
    "explain_missing_right",
    "fetch_batch",
    "fetch_rows",
    "mark_sent",
    "measure_backlog",
    "multirange_of",
    "requeue_after_outage",
    "seconds_until_due",
    "use_partial_indexes",
)

_SQL: Final = load_queries(__package__ or "relaybox.relay", "relay.sql")
#: Granted to every role by default.
_RIGHT: Final = (
    "EXECUTE on the functions pg_control_system(), pg_current_wal_lsn() and pg_walfile_name(pg_lsn)"
)
#: Most bytes of stored payload in one batch, to bound the memory of this process.
_BATCH_BYTES_MAX: Final = 16 * 2**20
_MESSAGE_CHARS_MAX: Final = 1_000
_BACKLOG_ROWS_MAX: Final = 100_000
#: How many PENDING rows, from the first one on, are checked for a FAILED row that blocks them.
_DUE_ROWS_MAX: Final = 10_000
#: Postponed rows are requeued as soon as their partition accepts writes; after this time if the relay misses
#: that.
_PARTITION_PAUSE_S: Final = 600.0
Charge = tuple[Message, RelayError, Retry | Postpone | GiveUp]
#: Shortest time between two advances of the low watermark.
_ADVANCE_S: Final = 0.25
#: How often a poll begins at the first row, to find rows that an operator made PENDING again by SQL.
_FULL_SCAN_S: Final = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """A lane that this relay owns until its lease ends."""

    lane: int
    #: Fencing token: rises whenever a relay takes the lane; a statement with an older epoch changes nothing.
    epoch: int
    #: ``time.monotonic()`` of the last renewal's *sending*, plus the lease: never later than the server's.
    valid_until_s: float


@asynccontextmanager
async def connected(database: Database) -> AsyncGenerator[DedicatedConnection]:
    """Open a connection outside the pool, with settings and LISTEN of its own, for an ``async with`` block.

    Raises:
        DatabaseUnavailable: PostgreSQL is unavailable.
    """
    connection = await database.dedicated()
    try:
        yield connection
    finally:
        connection.terminate()


async def fetch_rows(connection: DedicatedConnection, query: str, *args: Any) -> Sequence[Mapping[str, Any]]:
    """Run *query* within the connection's time limits, and return its rows.

    Raises:
        DatabaseUnavailable: No response in time, or the connection broke.
        DatabaseBusy: The server cancelled the query because of a lock or a time limit.
        RetryTransaction: A serialization failure or a deadlock; try again.
        DatabaseRefused: The server rejected the query for another reason.
    """
    try:
        with map_service_errors():
            return await connection.fetch(query, *args)
    except OSError as error:
        raise DatabaseUnavailable("PostgreSQL does not respond; check the server and the network") from error


@contextmanager
def explain_missing_right(right: str) -> Generator[None]:
    """Add to a refusal of PostgreSQL that a relay needs *right*, which migrations cannot grant.

    Raises:
        DatabaseRefused: The server refused a statement; the message names what a superuser has to grant.
    """
    try:
        yield
    except DatabaseRefused as refused:
        if refused.__cause__ is None or sqlstate_of(refused.__cause__) != INSUFFICIENT_PRIVILEGE:
            raise
        raise DatabaseRefused(f"{refused}; a relay needs {right}") from refused.__cause__


class Connections:
    """Opens connections, and rejects those to a server in another history than the first connection's.

    A history is a system identifier and a timeline. It changes when a standby is promoted or a backup is
    restored: commits may be missing then, and sequence numbers and epochs may be reused, so the relay must
    not use what it read from another history. The history of a server cannot change while a
    connection to it is open.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        #: Name and id of the history; None before the first connection.
        self._history: tuple[str, UUID] | None = None

    @property
    def schema_name(self) -> str:
        """Name of the schema of the tables."""
        return self._database.settings.schema_name

    @property
    def history_id(self) -> UUID:
        """Id of the history; a connection must have been opened before."""
        assert self._history is not None
        return self._history[1]

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[DedicatedConnection]:
        """Open a connection of the relay's own, for an ``async with`` block.

        Raises:
            DatabaseUnavailable: PostgreSQL is unavailable, or read-only.
            DatabaseRefused: A right or a migration is missing.
            HistoryChanged: The server is in another history.
        """
        async with connected(self._database) as connection:
            await self._confirm(connection)
            yield connection

    async def _confirm(self, connection: DedicatedConnection) -> None:
        with explain_missing_right(_RIGHT):
            [row] = await fetch_rows(connection, _SQL["confirm_history"])
            if row["history_id"] is None:  # another relay has recorded the history meanwhile
                [row] = await fetch_rows(connection, _SQL["confirm_history"])
        history = (row["history"], row["history_id"])
        if self._history is None:
            self._history = history
        elif history != self._history:
            raise HistoryChanged(
                f"PostgreSQL was in history {self._history[0]} (system identifier/timeline) and now is in "
                f"{history[0]}: a standby was promoted or a backup restored; run relaybox verify"
            )


async def fetch_batch(
    connection: DedicatedConnection,
    lanes: Sequence[Lane],
    *,
    rows_max: int,
    in_flight: Collection[int],
    start_seq: int = 0,
    cloudevents: CloudEventsMode = "binary",
) -> list[Message]:
    """Read at most *rows_max* publishable rows of *lanes*, from *start_seq* on, not *in_flight*."""
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
    """Mark acknowledged rows, *seqs* with *row_ids*, SENT; count and return the marked ones.

    *fences* are the rows' lanes, each with the epoch at which the rows were fetched.
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
    """Return what follows the failure of *message* because of *fault*."""
    if isinstance(fault, PartitionUnavailable):
        return message, fault, Postpone(after_s=_PARTITION_PAUSE_S)
    return message, fault, next_step(message.attempts + 1)


async def charge_rows(connection: DedicatedConnection, charges: Sequence[Charge]) -> None:
    """Record failures of rows: number of attempts, time of the next one or FAILED, reason (G24)."""
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
    """Make rows of *lanes* that failed because of the link PENDING again; return how many (G25)."""
    numbers, epochs = [lane.lane for lane in lanes], [lane.epoch for lane in lanes]
    return len(await fetch_rows(connection, _SQL["requeue_after_outage"], numbers, epochs))


async def seconds_until_due(connection: DedicatedConnection, *, fetched_s: float) -> float | None:
    """Return the seconds until the next attempt of a row; None without one.

    Rows that became due since the last fetch, *fetched_s* seconds ago, count: the result is then negative.
    """
    [row] = await fetch_rows(connection, _SQL["next_due"], fetched_s)
    return row["due_s"]


async def measure_backlog(connection: DedicatedConnection, counters: Counters, start_seq: int = 0) -> None:
    """Measure the backlog of all lanes from *start_seq*, below which no row may be PENDING."""
    [row] = await fetch_rows(connection, _SQL["measure_backlog"], _BACKLOG_ROWS_MAX, start_seq, _DUE_ROWS_MAX)
    oldest_s = row["oldest_s"] or 0.0
    # If all checked rows are blocked, the age of the next row is unknown: report the age of the oldest row,
    # which is larger.
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
    """Make the queries of this connection use the partial indexes of the outbox."""
    await fetch_rows(connection, _SQL["use_partial_indexes"])


def multirange_of(seqs: Collection[int]) -> str:
    """Return *seqs* as text of an ``int8multirange``, which in a backlog has few ranges for 10,000 rows."""
    if not seqs:
        return "{}"
    first, last = min(seqs), max(seqs)
    if last - first + 1 == len(set(seqs)):  # the usual case in a backlog; three times as fast as the loop
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


class LowWatermark:
    """The ``seq`` below which no row is PENDING, or can become PENDING by itself.

    Marking a row SENT leaves a dead entry in the index of PENDING rows. Usually the next poll removes it.
    While an old snapshot is open, polls cannot remove dead entries and would read all of them each time
    (after 5 minutes at 1,000 events/s: 300,000 entries, 40 ms a poll).

    Invariant (G22): no row that commits late is below the watermark. A transaction locks the table before it
    takes a ``seq``, and until it ends. Once the relay has read row n, and all transactions that held the lock
    at that time have ended, no row up to n can appear any more. A later query then finds the first row that
    is PENDING, or is FAILED and may become PENDING again.
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
        """Return the ``seq`` where the next poll begins: :attr:`seq`, but 0 every 10 s, to scan all rows."""
        now = time.monotonic()
        if now < self._full_scan_at_s:
            return self.seq
        self._full_scan_at_s = now + _FULL_SCAN_S
        return 0

    async def advance(self, connection: DedicatedConnection, fetched_seq: int) -> None:
        """Advance, at most every 0.25 s; *fetched_seq* is the highest ``seq`` that was fetched."""
        if fetched_seq <= self._seen_seq or time.monotonic() < self._advance_at_s:
            return
        self._advance_at_s = time.monotonic() + _ADVANCE_S
        rows = await fetch_rows(connection, _SQL["list_writers"])
        writers = frozenset(row["writer"] for row in rows)
        if writers & self._writers:
            return
        # A second statement, after the first: its snapshot contains what those writers committed.
        [row] = await fetch_rows(connection, _SQL["first_unsettled"], self.seq)
        self.seq = max(self.seq, min(self._seen_seq + 1, row["seq"] or self._seen_seq + 1))
        self._seen_seq, self._writers = fetched_seq, writers
