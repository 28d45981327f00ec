"""The relay's connections to PostgreSQL, queries of outbox rows, and the low watermark of polls."""

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
from relaybox.relay._errors import (
    GiveUp,
    HistoryChanged,
    LinkDown,
    PartitionUnavailable,
    Postpone,
    RelayError,
    Retry,
    next_step,
)
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
#: Right that :meth:`Connections.connected` needs, and that every role has by default.
_RIGHT: Final = (
    "EXECUTE on the functions pg_control_system(), pg_current_wal_lsn() and pg_walfile_name(pg_lsn)"
)
#: Maximum size of the payloads of one fetch, to bound the memory of this process.
_BATCH_BYTES_MAX: Final = 16 * 2**20
_MESSAGE_CHARS_MAX: Final = 1_000
_BACKLOG_ROWS_MAX: Final = 100_000
#: Number of PENDING rows, those with the lowest ``seq``, for which a blocking FAILED row is searched.
_DUE_ROWS_MAX: Final = 10_000
#: Postponed rows are tried again when their partition accepts writes, and at the latest after this time.
_PARTITION_PAUSE_S: Final = 600.0
Charge = tuple[Message, RelayError, Retry | Postpone | GiveUp]
#: Shortest time between two advances of the low watermark.
_ADVANCE_S: Final = 0.25
#: Interval of polls without low watermark, which find rows that an operator made PENDING by SQL.
_FULL_SCAN_S: Final = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """A lane (slice of keys) that this relay owns until its lease ends."""

    #: Number of the lane.
    lane: int
    #: Fencing token: incremented when a relay takes the lane; statements with an older epoch change nothing.
    epoch: int
    #: End of the lease by ``time.monotonic()``, counted from before the renewal was sent. So the lease ends
    #: here no later than in PostgreSQL.
    valid_until_s: float


@asynccontextmanager
async def connected(database: Database) -> AsyncGenerator[DedicatedConnection]:
    """Open a connection outside the pool for an ``async with`` block, to use session settings and LISTEN.

    Raises:
        DatabaseUnavailable: PostgreSQL is unavailable.
    """
    connection = await database.dedicated()
    try:
        yield connection
    finally:
        connection.terminate()


async def fetch_rows(connection: DedicatedConnection, query: str, *args: Any) -> Sequence[Mapping[str, Any]]:
    """Execute *query* within the connection's time limits, and return its rows.

    Raises:
        DatabaseUnavailable: No response in time, or the connection broke.
        DatabaseBusy: The server cancelled the query because of a lock or a time limit.
        RetryTransaction: A serialization failure or a deadlock; repeat the query.
        DatabaseRefused: The server rejected the query for another reason.
    """
    try:
        with map_service_errors():
            return await connection.fetch(query, *args)
    except OSError as error:
        raise DatabaseUnavailable(
            f"the connection to PostgreSQL failed: {error}; check the server and the network"
        ) from error


@contextmanager
def explain_missing_right(right: str) -> Generator[None]:
    """Add *right* to the error message if the ``with`` block fails because a right in PostgreSQL is missing.

    Migrations cannot grant *right*; a superuser has to.

    Raises:
        DatabaseRefused: PostgreSQL rejected a statement; the message has *right* if a right is missing.
    """
    try:
        yield
    except DatabaseRefused as refused:
        if refused.__cause__ is None or sqlstate_of(refused.__cause__) != INSUFFICIENT_PRIVILEGE:
            raise
        raise DatabaseRefused(f"{refused}; a relay needs {right}") from refused.__cause__


class Connections:
    """Open connections; reject a server whose history differs from the history at the first connection.

    The history (system identifier and timeline) changes when a standby is promoted or a backup is restored.
    Commits may then be missing, and sequence numbers and epochs may repeat, so the relay must not use values
    that were read before. The history cannot change while a connection to the server is open.
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
        """Id of the history; only after a connection was opened."""
        assert self._history is not None
        return self._history[1]

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[DedicatedConnection]:
        """Open a connection outside the pool for an ``async with`` block.

        Raises:
            DatabaseUnavailable: PostgreSQL is unavailable, or read-only.
            DatabaseRefused: A right or a migration is missing.
            HistoryChanged: The server has another history than at the first connection.
        """
        async with connected(self._database) as connection:
            await self._confirm(connection)
            yield connection

    async def _confirm(self, connection: DedicatedConnection) -> None:
        """Store the history at the first connection; at later ones, raise HistoryChanged if it differs."""
        with explain_missing_right(_RIGHT):
            [row] = await fetch_rows(connection, _SQL["confirm_history"])
            if row["history_id"] is None:  # another relay has stored the history at the same time
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
    """Read rows of *lanes* that may be published now: at most *rows_max* rows and about 16 MiB of payloads.

    Args:
        connection: A connection on which :func:`use_partial_indexes` was executed.
        lanes: Owned lanes. Rows of a lane that has another epoch by now are left out.
        rows_max: Maximum number of rows.
        in_flight: ``seq`` of rows to leave out.
        start_seq: Low watermark: lowest ``seq`` to read.
        cloudevents: CloudEvents mode in which the rows will be published.
    """
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
    """Mark acknowledged rows SENT, except in lanes that this relay has lost; return how many were marked.

    Args:
        connection: A connection outside a transaction.
        seqs: ``seq`` of the rows.
        row_ids: Ids of the rows, which unlike ``seq`` do not repeat after a failover.
        fences: Number and epoch of the rows' lanes when the rows were fetched.
        counters: Counters to increment.
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
    """Return *message* and *fault* with the decision that follows: retry, postpone or give up."""
    if isinstance(fault, PartitionUnavailable):
        return message, fault, Postpone(after_s=_PARTITION_PAUSE_S)
    return message, fault, next_step(message.attempts + 1)


async def charge_rows(connection: DedicatedConnection, charges: Sequence[Charge]) -> None:
    """Record the attempts and the reason of failed rows, except in lanes that this relay has lost (G24).

    A row gets the time of its next attempt, or becomes FAILED.
    """
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
    """Make the rows of *lanes* PENDING whose failure has the reason ``link``; return their number (G25)."""
    numbers, epochs = [lane.lane for lane in lanes], [lane.epoch for lane in lanes]
    return len(await fetch_rows(connection, _SQL["requeue_after_outage"], numbers, epochs))


async def seconds_until_due(connection: DedicatedConnection, *, fetched_s: float) -> float | None:
    """Return the seconds until the first retry of a row; None if no row waits for a retry.

    The result is negative if a row became due after the last fetch, which was *fetched_s* seconds ago.
    """
    [row] = await fetch_rows(connection, _SQL["next_due"], fetched_s)
    return row["due_s"]


async def measure_backlog(connection: DedicatedConnection, counters: Counters, start_seq: int = 0) -> None:
    """Measure the backlog of all lanes into *counters*; *start_seq* is the low watermark."""
    [row] = await fetch_rows(connection, _SQL["measure_backlog"], _BACKLOG_ROWS_MAX, start_seq, _DUE_ROWS_MAX)
    oldest_s = row["oldest_s"] or 0.0
    # If all checked rows are blocked, the age of the first row that is not blocked is unknown. Then report
    # the age of the oldest row, which is higher.
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
    """Return *seqs* as text of an ``int8multirange``: in a backlog, few ranges represent 10,000 rows."""
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
    """The ``seq`` below which no row is PENDING or can become PENDING without an operator's SQL.

    Marking a row SENT leaves a dead entry in the index of PENDING rows, which usually the next poll removes.
    While an old snapshot is open, polls cannot remove dead entries. Polls that start at 0 would then read all
    of them each time (after 5 minutes at 1,000 events/s: 300,000 entries, 40 ms per poll).

    Invariant (G22): no row that commits late is below the watermark. A transaction that inserts rows locks
    the table before it draws a ``seq``, and holds the lock until its end. When the relay has read row n, and
    all transactions that held the lock at that time have ended, no row up to n can become visible later. A
    query then finds the first row that is PENDING, or is FAILED and may become PENDING: the new watermark.
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
        """Return the lowest ``seq`` of the next poll: :attr:`seq`, or every 10 s 0, to read all rows."""
        now = time.monotonic()
        if now < self._full_scan_at_s:
            return self.seq
        self._full_scan_at_s = now + _FULL_SCAN_S
        return 0

    async def advance(self, connection: DedicatedConnection, fetched_seq: int) -> None:
        """Advance the watermark, at most every 0.25 s; *fetched_seq* is the highest fetched ``seq``."""
        if fetched_seq <= self._seen_seq or time.monotonic() < self._advance_at_s:
            return
        self._advance_at_s = time.monotonic() + _ADVANCE_S
        rows = await fetch_rows(connection, _SQL["list_writers"])
        writers = frozenset(row["writer"] for row in rows)
        if writers & self._writers:
            return
        # A separate statement, whose snapshot contains the commits of those writers.
        [row] = await fetch_rows(connection, _SQL["first_unsettled"], self.seq)
        self.seq = max(self.seq, min(self._seen_seq + 1, row["seq"] or self._seen_seq + 1))
        self._seen_seq, self._writers = fetched_seq, writers
