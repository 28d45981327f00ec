"""What a lane's owners wrote down about their Kafka transactions, in PostgreSQL."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from relaybox.db import DedicatedConnection, load_queries
from relaybox.relay._ask import fetch_rows
from relaybox.relay._delivery import LaneBatch
from relaybox.relay._lanes import Lane
from relaybox.relay._verdict import Claim, RecoveryPlan

__all__ = (
    "OwnedLane",
    "assign_next_producers",
    "claim",
    "list_claims",
    "origin_of",
    "owned_lanes",
    "record_recovery",
    "report_fault",
    "trim",
)

_SQL: Final = load_queries(__package__ or "relaybox.relay", "batches.sql")


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
