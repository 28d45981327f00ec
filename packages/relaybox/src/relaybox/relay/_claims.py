"""Claims of batches in PostgreSQL, and what they prove together with Kafka's marker (G31)."""

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

#: What an operator accepts when the marker is missing.
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
    """What is to be done before anything new is published from the lane."""

    #: Rows that are on the topic: to be marked.
    published_seqs: Sequence[int]
    #: Claims that nobody will ask for again: those never published, whose rows are PENDING and stay so, and
    #: those published before the last one.
    obsolete: Sequence[int]
    #: The last published batch.
    last_id: UUID | None
    #: The same, where no claim is of it: accepted until the claim that follows it.
    accepted_marker: UUID | None = None


def plan_recovery(
    lane: int, marker: UUID | None, accepted: UUID | None, claims: Sequence[Claim]
) -> RecoveryPlan:
    """What Kafka's *marker*, the id of the last batch published from *lane*, says about *claims*.

    Published are the marker's batch and those it follows, by their ``previous_id``; of any other claim
    the transaction was not committed, and cannot be any more. *accepted* is a marker unknown here
    that an operator has accepted.

    Raises:
        LaneFaulty: the marker fits no claim, or is missing though something was published.
    """
    known = {claim.batch_id: claim for claim in claims}
    published: list[Claim] = []
    at = marker
    while at is not None and (claim := known.pop(at, None)):
        published.append(claim)
        at = claim.previous_id
    if not published and not _agrees(marker, accepted, claims):
        raise LaneFaulty(
            f"lane {lane}: Kafka's marker is {marker or NO_MARKER}, which this database does not know; "
            "was one of them restored? See `relaybox verify`, then `relaybox relay accept`"
        )
    return RecoveryPlan(
        published_seqs=[seq for claim in published for seq in claim.seqs],
        obsolete=[claim.number for claim in (*known.values(), *published[1:])],
        last_id=marker,
    )


def plan_recovery_after_history_change(marker: UUID | None, claims: Sequence[Claim]) -> RecoveryPlan:
    """Return what to do once every published row of the lane is marked, whatever the *claims* say."""
    return RecoveryPlan(
        published_seqs=(),
        obsolete=[claim.number for claim in claims],
        last_id=marker,
        accepted_marker=marker,
    )


def _agrees(marker: UUID | None, accepted: UUID | None, claims: Sequence[Claim]) -> bool:
    """Whether nothing of *claims* being published is what this database would expect of *marker*."""
    if marker is None:
        return accepted == NO_MARKER or all(claim.previous_id is None for claim in claims)
    return marker == accepted or any(claim.previous_id == marker for claim in claims)


async def origin_of(connection: DedicatedConnection) -> UUID:
    """This outbox's name among others on the same Kafka; named when first asked for."""
    rows = await fetch_rows(connection, _SQL["origin"]) or await fetch_rows(connection, _SQL["known_origin"])
    return rows[0]["id"]


class OwnedLane(NamedTuple):
    """A lane that is about to be opened."""

    #: Which marker, unknown to the claims, is accepted.
    accepted_marker: UUID | None
    #: In which history of PostgreSQL the lane was last compared with Kafka; None: not known.
    history_id: UUID | None
    #: Which of the lane's producers is in use.
    producer_number: int


async def owned_lanes(connection: DedicatedConnection, lanes: Sequence[Lane]) -> dict[int, OwnedLane]:
    """Return those of *lanes* that are still held."""
    numbers, epochs = _fences(lanes)
    rows = await fetch_rows(connection, _SQL["owned_lanes"], numbers, epochs)
    return {
        row["lane"]: OwnedLane(row["accepted_marker"], row["history_id"], row["producer_number"])
        for row in rows
    }


async def assign_next_producers(connection: DedicatedConnection, lanes: Sequence[Lane]) -> dict[int, int]:
    """Give each of *lanes* that is still held another producer; return their numbers by lane."""
    numbers, epochs = _fences(lanes)
    rows = await fetch_rows(connection, _SQL["assign_next_producers"], numbers, epochs)
    return {row["lane"]: row["producer_number"] for row in rows}


async def claim(
    connection: DedicatedConnection,
    batches: Sequence[LaneBatch],
    previous: Mapping[int, UUID | None],
) -> dict[int, int]:
    """Write down what is being published, a batch of each lane; the claims' numbers by lane.

    *previous* has the last published batch of each lane. A lane that is not held any more is left out.
    Once this has returned, and not before, the batches may be committed.
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
    """What was claimed for *lanes*, oldest first."""
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
    """Carry *verdict* out, in history *history_id*; whether *lane* was still held."""
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
    """Tell operators why *lane* is not published from."""
    await fetch_rows(connection, _SQL["report_lane_fault"], lane.lane, lane.epoch, fault)


async def trim(connection: DedicatedConnection, settled: Mapping[tuple[int, int], int]) -> None:
    """Forget claims older than the last settled one, by lane and epoch."""
    lanes, epochs = [lane for lane, _ in settled], [epoch for _, epoch in settled]
    await fetch_rows(connection, _SQL["trim_batches"], lanes, epochs, list(settled.values()))


def _fences(lanes: Sequence[Lane]) -> tuple[list[int], list[int]]:
    return [lane.lane for lane in lanes], [lane.epoch for lane in lanes]


class RejectionIsolator:
    """The broker refuses a request as a whole, so its verdict tells nothing about a row: try one by one.

    That happens only when a limit was lowered since it was read. Limits read anew convict most
    culprits before anything is sent; who fails alone is guilty, unless the lane's marker says
    that it was published after all.
    """

    def __init__(self) -> None:
        #: Rows of a lane still to be tried alone.
        self._alone: dict[int, int] = {}
        self._rejected_alone: dict[int, tuple[UUID, Fault]] = {}
        self._confirmed: list[Fault] = []

    def note_rejected(self, batch: LaneBatch, error: KafkaError) -> None:
        """*batch* was refused."""
        if len(batch.messages) > 1:
            self._alone[batch.lane] = len(batch.messages)
        else:
            self._rejected_alone[batch.lane] = (batch.batch_id, (batch.messages[0], RecordRefused.by(error)))

    def confirm(self, lane: int, last_id: UUID | None) -> None:
        """*lane* was taken over anew; *last_id* was published last."""
        batch_id, fault = self._rejected_alone.pop(lane, (None, None))
        if fault is not None and batch_id != last_id:
            self._confirmed.append(fault)
            self._alone.pop(lane, None)

    def note_published(self, batch: LaneBatch) -> None:
        """*batch* was published."""
        left = self._alone.pop(batch.lane, 0) - len(batch.messages)
        if left > 0:
            self._alone[batch.lane] = left

    def take_confirmed(self) -> list[Fault]:
        """Those found guilty since this was last asked."""
        confirmed, self._confirmed = self._confirmed, []
        return confirmed

    def is_isolating(self, lane: int) -> bool:
        """Whether rows of *lane* take off one by one."""
        return lane in self._alone

    def one_per_lane(self, messages: Sequence[Message]) -> Sequence[Message]:
        """*messages* with at most one of each lane under suspicion."""
        if not self._alone:
            return messages
        seen: set[int] = set()
        taken: list[Message] = []
        for message in messages:
            if message.lane in seen:
                continue
            if message.lane in self._alone:
                seen.add(message.lane)
            taken.append(message)
        return taken

    @staticmethod
    def without_keys_of(messages: Sequence[Message], faulty: Sequence[Fault]) -> Sequence[Message]:
        """*messages* without those that must wait for one in *faulty*."""
        if not faulty:
            return messages
        waiting = {message.key for message, _ in faulty if message.key is not None}
        gone = {message.seq for message, _ in faulty}
        return [m for m in messages if m.key not in waiting and m.seq not in gone]
