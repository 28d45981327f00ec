"""Whether the batches that a lane's owners claimed were published. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from relaybox.relay._errors import LaneFaulty

__all__ = ("NO_MARKER", "Claim", "RecoveryPlan", "plan_recovery", "plan_recovery_after_history_change")

#: What an operator accepts when the marker is missing.
NO_MARKER: Final = UUID(int=0)


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
