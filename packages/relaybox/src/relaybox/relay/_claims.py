"""Claims of batches in PostgreSQL: compared with the marker in Kafka, they show what was published (G31)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple
from uuid import UUID

from confluent_kafka import KafkaError

from relaybox.db import DedicatedConnection, load_queries
from relaybox.relay._batches import LaneBatch
from relaybox.relay._errors import LaneFaulty, LinkDown, RecordRefused, RowFault
from relaybox.relay._messages import Message
from relaybox.relay._postgres import Lane, fetch_rows

__all__ = (
    "NO_MARKER",
    "Claim",
    "OwnedLane",
    "RecoveryPlan",
    "RejectionIsolator",
    "Withdrawals",
    "assign_next_producers",
    "claim",
    "list_claims",
    "origin_of",
    "owned_lanes",
    "plan_recovery",
    "plan_recovery_after_history_change",
    "record_recovery",
    "report_fault",
    "trim",
    "unpublished_claims",
)

#: Stands for a missing marker: in error messages, and in ``relay_lanes.accepted_marker`` after an operator
#: has accepted that the marker is missing.
NO_MARKER: Final = UUID(int=0)
_SQL: Final = load_queries(__package__ or "relaybox.relay", "relay.sql")
Fault = tuple[Message, RowFault | LinkDown]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A row of ``relay_batches``: a batch that a relay claimed before its commit."""

    #: Number of the claim; later claims have higher numbers.
    number: int
    batch_id: UUID
    #: Id of the last published batch of the lane at the time of the claim; None if none was known.
    previous_id: UUID | None
    #: ``seq`` of each row of the batch.
    seqs: Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecoveryPlan:
    """Changes that a takeover must record before the relay publishes from the lane."""

    #: ``seq`` of rows that are on the topic and must be marked SENT.
    published_seqs: Sequence[int]
    #: Numbers of claims to delete: of unpublished batches, and of batches published before the last one.
    obsolete: Sequence[int]
    #: Id of the last published batch; None: no batch was published.
    last_id: UUID | None
    #: ``last_id`` if later takeovers must accept this marker although no claim has the id. None: an accepted
    #: marker stays, except ``NO_MARKER``, which is accepted for one takeover only.
    accepted_marker: UUID | None = None


def plan_recovery(
    lane: int, marker: UUID | None, accepted: UUID | None, claims: Sequence[Claim]
) -> RecoveryPlan:
    """Decide which of *claims* were published.

    The batch of the marker was published, and so were its predecessors by ``previous_id``. The transaction of
    any other claim was not committed. It can no longer be committed, because the takeover has fenced the
    former owners of the lane before it read the marker.

    Args:
        lane: Number of the lane, for the error.
        marker: Id of the last batch of the lane that was committed to Kafka; None if Kafka has no marker.
        accepted: Marker that an operator accepted; None if there is none.
        claims: All claims of the lane.

    Raises:
        LaneFaulty: The marker was not accepted and no claim has it, as its own id or as ``previous_id``; or
            the marker is missing, no operator accepted that, and a claim has a ``previous_id``.
    """
    published = _published_claims(marker, claims)
    if not published and not _agrees(marker, accepted, claims):
        found = (
            f"{NO_MARKER} (none found), but this database knows published batches"
            if marker is None
            else f"{marker}, the id of no batch that this database knows"
        )
        raise LaneFaulty(
            f"lane {lane}: Kafka's marker is {found} (was Kafka or PostgreSQL restored?); "
            "run `relaybox verify`, then `relaybox relay accept`"
        )
    return RecoveryPlan(
        published_seqs=[seq for claim in published for seq in claim.seqs],
        obsolete=[claim.number for claim in (*unpublished_claims(marker, claims), *published[1:])],
        last_id=marker,
    )


def unpublished_claims(marker: UUID | None, claims: Sequence[Claim]) -> list[Claim]:
    """Return those of a lane's *claims* that were not published if *marker* is the lane's last marker."""
    published = {claim.number for claim in _published_claims(marker, claims)}
    return [claim for claim in claims if claim.number not in published]


def _published_claims(marker: UUID | None, claims: Sequence[Claim]) -> list[Claim]:
    """Return the claim of *marker* and its predecessors by ``previous_id``, the newest first."""
    known = {claim.batch_id: claim for claim in claims}
    published: list[Claim] = []
    at = marker
    while at is not None and (claim := known.pop(at, None)):
        published.append(claim)
        at = claim.previous_id
    return published


def plan_recovery_after_history_change(marker: UUID | None, claims: Sequence[Claim]) -> RecoveryPlan:
    """Return the plan for a lane whose published rows were found on the topics and marked.

    All *claims* are deleted, and *marker* is accepted although no claim has its id.
    """
    return RecoveryPlan(
        published_seqs=(),
        obsolete=[claim.number for claim in claims],
        last_id=marker,
        accepted_marker=marker,
    )


def _agrees(marker: UUID | None, accepted: UUID | None, claims: Sequence[Claim]) -> bool:
    """Return whether *marker* is accepted, or can be the marker from before the first of *claims*."""
    if marker is None:
        return accepted == NO_MARKER or all(claim.previous_id is None for claim in claims)
    return marker == accepted or any(claim.previous_id == marker for claim in claims)


async def origin_of(connection: DedicatedConnection) -> UUID:
    """Return the id that distinguishes this outbox from others on the Kafka cluster; create it if missing."""
    rows = await fetch_rows(connection, _SQL["origin"]) or await fetch_rows(connection, _SQL["known_origin"])
    return rows[0]["id"]


class OwnedLane(NamedTuple):
    """State of a lane in ``relay_lanes`` during a takeover."""

    #: Marker that an operator or a relay accepted although no claim has its id; None if there is none.
    accepted_marker: UUID | None
    #: Id of PostgreSQL's history in which the lane was last compared with Kafka; None if not known.
    history_id: UUID | None
    #: Number of the lane's producer, which determines its ``transactional.id``.
    producer_number: int


async def owned_lanes(connection: DedicatedConnection, lanes: Sequence[Lane]) -> dict[int, OwnedLane]:
    """Return those of *lanes* that this relay still owns, by number."""
    numbers, epochs = _fences(lanes)
    rows = await fetch_rows(connection, _SQL["owned_lanes"], numbers, epochs)
    return {
        row["lane"]: OwnedLane(row["accepted_marker"], row["history_id"], row["producer_number"])
        for row in rows
    }


async def assign_next_producers(connection: DedicatedConnection, lanes: Sequence[Lane]) -> dict[int, int]:
    """Assign the next producer to each of *lanes* that this relay still owns; return its number by lane.

    While a relay of an older version runs, nothing is assigned and the result is empty: that relay knows only
    the first ``transactional.id`` of a lane, so it could not fence another one.
    """
    numbers, epochs = _fences(lanes)
    rows = await fetch_rows(connection, _SQL["assign_next_producers"], numbers, epochs)
    return {row["lane"]: row["producer_number"] for row in rows}


async def claim(
    connection: DedicatedConnection,
    batches: Sequence[LaneBatch],
    previous: Mapping[int, UUID | None],
) -> dict[int, int]:
    """Claim *batches*, and return the numbers of the claims by lane, without lanes that this relay has lost.

    A batch may be committed only if the result has its claim.

    Args:
        connection: A connection outside a transaction.
        batches: At most one batch per lane.
        previous: Id of the last published batch by lane; None if there is none.
    """
    rows = await fetch_rows(
        connection,
        _SQL["claim_batches"],
        [batch.lane for batch in batches],
        [batch.messages[0].epoch for batch in batches],
        [batch.batch_id for batch in batches],
        [previous[batch.lane] for batch in batches],
        ["{" + ",".join(str(message.seq) for message in batch.messages) + "}" for batch in batches],
    )
    return {row["lane"]: row["number"] for row in rows}


async def list_claims(connection: DedicatedConnection, lanes: Sequence[int]) -> dict[int, list[Claim]]:
    """Return the claims of *lanes*, oldest first."""
    found: dict[int, list[Claim]] = {lane: [] for lane in lanes}
    for row in await fetch_rows(connection, _SQL["list_claims"], list(lanes)):
        found[row["lane"]].append(
            Claim(
                number=row["number"],
                batch_id=row["batch_id"],
                previous_id=row["previous_id"],
                seqs=row["seqs"],
            )
        )
    return found


async def record_recovery(
    connection: DedicatedConnection, lane: Lane, plan: RecoveryPlan, history_id: UUID
) -> bool:
    """Record *plan* and the id of PostgreSQL's history; return whether this relay still owns *lane*."""
    [row] = await fetch_rows(
        connection,
        _SQL["recover_lane"],
        lane.lane,
        lane.epoch,
        list(plan.published_seqs),
        list(plan.obsolete),
        history_id,
        plan.accepted_marker,
    )
    return row["held"]


async def report_fault(connection: DedicatedConnection, lane: Lane, fault: str) -> None:
    """Record the reason why no relay publishes from *lane*, for operators."""
    await fetch_rows(connection, _SQL["report_lane_fault"], lane.lane, lane.epoch, fault)


async def trim(connection: DedicatedConnection, settled: Mapping[tuple[int, int], int]) -> None:
    """Delete the claims of each lane that are older than the last claim whose outcome is recorded.

    Args:
        connection: A connection outside a transaction.
        settled: Number of that last claim, by lane number and epoch.
    """
    lanes, epochs = [lane for lane, _ in settled], [epoch for _, epoch in settled]
    await fetch_rows(connection, _SQL["trim_batches"], lanes, epochs, list(settled.values()))


class Withdrawals:
    """Claims to delete: of failed batches for which this relay has not requested a commit and never will.

    The next owner of the lane cannot know that the batch will not be committed. So while a partition accepts
    no writes, the claim would delay the takeover of the lane (G36).
    """

    def __init__(self) -> None:
        self._batches: list[LaneBatch] = []

    def add(self, batch: LaneBatch) -> None:
        """Withdraw the claim of the failed *batch* in the next call of :meth:`record`."""
        self._batches.append(replace(batch, messages=()))

    async def record(self, connection: DedicatedConnection) -> None:
        """Delete the claims; a claim that is still being written is deleted by a later call."""
        written = [batch for batch in self._batches if batch.number.done()]
        if written:
            await fetch_rows(connection, _SQL["withdraw_claims"], [batch.batch_id for batch in written])
            self._batches = [batch for batch in self._batches if batch not in written]


def _fences(lanes: Sequence[Lane]) -> tuple[list[int], list[int]]:
    return [lane.lane for lane in lanes], [lane.epoch for lane in lanes]


class RejectionIsolator:
    """Find the row that the broker rejects, by publishing the rows of a rejected batch one by one.

    The broker rejects a request as a whole, so its error does not identify the row. This is rare, because
    the relay compares rows with the limits of topics before it sends them; but a limit may be lowered later.
    A row that is rejected alone is at fault, unless the lane's marker in Kafka shows that it was published::

        batch rejected ─► rows alone ─► row rejected ─► lane taken over ─┬─► confirmed
                              └─► published ─► next row                  └─► published after all
    """

    def __init__(self) -> None:
        #: Number of rows to publish alone, by lane.
        self._alone: dict[int, int] = {}
        #: By lane, the row that was rejected alone, with the id of its batch.
        self._rejected_alone: dict[int, tuple[UUID, Fault]] = {}
        self._confirmed: list[Fault] = []

    def note_rejected(self, batch: LaneBatch, error: KafkaError) -> None:
        """Handle the rejection of *batch*: publish its rows alone, or note its only row as rejected."""
        if len(batch.messages) > 1:
            self._alone[batch.lane] = len(batch.messages)
        else:
            self._rejected_alone[batch.lane] = (batch.batch_id, (batch.messages[0], RecordRefused.by(error)))

    def confirm(self, lane: int, last_id: UUID | None) -> None:
        """Decide whether the rejected row of *lane* is at fault, after the lane was taken over again.

        Args:
            lane: Number of the lane.
            last_id: Id of the lane's last published batch; None: none was published.
        """
        batch_id, fault = self._rejected_alone.pop(lane, (None, None))
        if fault is not None and batch_id != last_id:
            self._confirmed.append(fault)
            self._alone.pop(lane, None)

    def note_published(self, batch: LaneBatch) -> None:
        """Note that *batch* was published; the isolation of its lane ends with the last isolated row."""
        left = self._alone.pop(batch.lane, 0) - len(batch.messages)
        if left > 0:
            self._alone[batch.lane] = left

    def take_confirmed(self) -> list[Fault]:
        """Return and remove the rows that are at fault."""
        confirmed, self._confirmed = self._confirmed, []
        return confirmed

    def is_isolating(self, lane: int) -> bool:
        """Return whether rows of *lane* are published one by one."""
        return lane in self._alone

    def one_per_lane(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return *messages* with at most one row of each lane whose rows are published one by one."""
        if not self._alone:
            return messages
        seen: set[int] = set()
        selected: list[Message] = []
        for message in messages:
            if message.lane in seen:
                continue
            if message.lane in self._alone:
                seen.add(message.lane)
            selected.append(message)
        return selected

    @staticmethod
    def without_keys_of(messages: Sequence[Message], faulty: Sequence[Fault]) -> Sequence[Message]:
        """Return *messages* without the rows in *faulty* and without any row of their keys."""
        if not faulty:
            return messages
        blocked = {message.key for message, _ in faulty if message.key is not None}
        seqs = {message.seq for message, _ in faulty}
        return [m for m in messages if m.key not in blocked and m.seq not in seqs]
