"""Claims of batches in PostgreSQL, which prove with Kafka's marker what was published (G31)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
)

#: Stands for a missing marker in messages, and if an operator accepts that it is missing.
NO_MARKER: Final = UUID(int=0)
_SQL: Final = load_queries(__package__ or "relaybox.relay", "relay.sql")
Fault = tuple[Message, RowFault | LinkDown]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A row of ``relay_batches``."""

    number: int
    batch_id: UUID
    previous_id: UUID | None
    seqs: Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecoveryPlan:
    """What the relay must record before it publishes from the lane again."""

    #: Rows that are on the topic and have to be marked.
    published_seqs: Sequence[int]
    #: Numbers of the claims to delete: never published, or published before the last one.
    obsolete: Sequence[int]
    #: Id of the last published batch; None: nothing was published.
    last_id: UUID | None
    #: ``last_id`` if later takeovers must accept it although no claim has that id. None changes nothing.
    accepted_marker: UUID | None = None


def plan_recovery(
    lane: int, marker: UUID | None, accepted: UUID | None, claims: Sequence[Claim]
) -> RecoveryPlan:
    """Decide which of *claims* were published, by *marker*, the id of the last batch committed to Kafka.

    The marker's batch was published, and so were its predecessors by ``previous_id``. The transaction of any
    other claim was not committed, and cannot be any more. *accepted* is a marker that an operator accepted.

    Raises:
        LaneFaulty: The marker matches no claim, or is missing although something was published.
    """
    known = {claim.batch_id: claim for claim in claims}
    published: list[Claim] = []
    at = marker
    while at is not None and (claim := known.pop(at, None)):
        published.append(claim)
        at = claim.previous_id
    if not published and not _agrees(marker, accepted, claims):
        raise LaneFaulty(
            f"lane {lane}: Kafka's marker is {marker or NO_MARKER}, which this database does not know "
            "(was one of them restored?); run `relaybox verify`, then `relaybox relay accept`"
        )
    return RecoveryPlan(
        published_seqs=[seq for claim in published for seq in claim.seqs],
        obsolete=[claim.number for claim in (*known.values(), *published[1:])],
        last_id=marker,
    )


def plan_recovery_after_history_change(marker: UUID | None, claims: Sequence[Claim]) -> RecoveryPlan:
    """Return the plan for a lane of which all published rows are marked: *claims* are not needed."""
    return RecoveryPlan(
        published_seqs=(),
        obsolete=[claim.number for claim in claims],
        last_id=marker,
        accepted_marker=marker,
    )


def _agrees(marker: UUID | None, accepted: UUID | None, claims: Sequence[Claim]) -> bool:
    """Return whether *marker* fits claims of which none was published, or an operator accepted it."""
    if marker is None:
        return accepted == NO_MARKER or all(claim.previous_id is None for claim in claims)
    return marker == accepted or any(claim.previous_id == marker for claim in claims)


async def origin_of(connection: DedicatedConnection) -> UUID:
    """Return the id that distinguishes this outbox on its Kafka cluster; created on first use."""
    rows = await fetch_rows(connection, _SQL["origin"]) or await fetch_rows(connection, _SQL["known_origin"])
    return rows[0]["id"]


class OwnedLane(NamedTuple):
    """What PostgreSQL knows of a lane that is being taken over."""

    #: The marker that was accepted although no claim has its id; None if there is none.
    accepted_marker: UUID | None
    #: History of PostgreSQL in which the lane was last compared with Kafka; None if not known.
    history_id: UUID | None
    #: Number of the producer that the lane uses.
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
    """Assign another producer to each of *lanes* that this relay still owns; return its number by lane."""
    numbers, epochs = _fences(lanes)
    rows = await fetch_rows(connection, _SQL["assign_next_producers"], numbers, epochs)
    return {row["lane"]: row["producer_number"] for row in rows}


async def claim(
    connection: DedicatedConnection,
    batches: Sequence[LaneBatch],
    previous: Mapping[int, UUID | None],
) -> dict[int, int]:
    """Claim *batches*, one of each lane, and return the claims' numbers by lane.

    *previous* contains the last published batch of each lane. The result leaves out lanes that this relay has
    lost. A batch may be committed only after its claim is returned.
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
    """Record *plan* in history *history_id*; return whether this relay still owns *lane*."""
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
    """Record for operators why the relay does not publish from *lane*."""
    await fetch_rows(connection, _SQL["report_lane_fault"], lane.lane, lane.epoch, fault)


async def trim(connection: DedicatedConnection, settled: Mapping[tuple[int, int], int]) -> None:
    """Delete the claims of each lane and epoch that are older than its last recorded claim."""
    lanes, epochs = [lane for lane, _ in settled], [epoch for _, epoch in settled]
    await fetch_rows(connection, _SQL["trim_batches"], lanes, epochs, list(settled.values()))


def _fences(lanes: Sequence[Lane]) -> tuple[list[int], list[int]]:
    return [lane.lane for lane in lanes], [lane.epoch for lane in lanes]


class RejectionIsolator:
    """Finds the row that the broker rejects, by publishing the rows of a rejected batch one by one.

    The broker rejects a request as a whole, so its error does not identify the row. That happens only if a
    limit was lowered after it was read; most faulty rows are found by reading the limits again. A row that
    is rejected alone is at fault, unless the lane's marker proves that it was published after all::

        batch rejected ─► rows alone ─► row rejected ─► lane taken over ─┬─► confirmed
                              └─► published ─► next row                  └─► published after all
    """

    def __init__(self) -> None:
        #: By lane, how many rows are still to be published alone.
        self._alone: dict[int, int] = {}
        #: The row of each lane that was rejected alone, with its batch.
        self._rejected_alone: dict[int, tuple[UUID, Fault]] = {}
        self._confirmed: list[Fault] = []

    def note_rejected(self, batch: LaneBatch, error: KafkaError) -> None:
        """Note that the broker rejected *batch*."""
        if len(batch.messages) > 1:
            self._alone[batch.lane] = len(batch.messages)
        else:
            self._rejected_alone[batch.lane] = (batch.batch_id, (batch.messages[0], RecordRefused.by(error)))

    def confirm(self, lane: int, last_id: UUID | None) -> None:
        """Decide whether the rejected row of *lane* is at fault, after another takeover of the lane.

        *last_id* is the batch that was published last.
        """
        batch_id, fault = self._rejected_alone.pop(lane, (None, None))
        if fault is not None and batch_id != last_id:
            self._confirmed.append(fault)
            self._alone.pop(lane, None)

    def note_published(self, batch: LaneBatch) -> None:
        """Note that *batch* was published."""
        left = self._alone.pop(batch.lane, 0) - len(batch.messages)
        if left > 0:
            self._alone[batch.lane] = left

    def take_confirmed(self) -> list[Fault]:
        """Return and forget the rows that are at fault."""
        confirmed, self._confirmed = self._confirmed, []
        return confirmed

    def is_isolating(self, lane: int) -> bool:
        """Return whether rows of *lane* are published one by one."""
        return lane in self._alone

    def one_per_lane(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return *messages* with at most one of each lane that is being isolated."""
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
        """Return *messages* without the rows in *faulty* and later rows of their keys."""
        if not faulty:
            return messages
        blocked = {message.key for message, _ in faulty if message.key is not None}
        seqs = {message.seq for message, _ in faulty}
        return [m for m in messages if m.key not in blocked and m.seq not in seqs]
