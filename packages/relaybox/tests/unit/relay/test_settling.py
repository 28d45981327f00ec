"""Plans of takeovers, the circuit breaker, and the isolation of a rejected row."""

from uuid import UUID, uuid4

import pytest
from confluent_kafka import KafkaError
from relaybox.relay._batches import LaneBatch, TransactionResult, TransactionState
from relaybox.relay._claims import NO_MARKER, Claim, RejectionIsolator, plan_recovery
from relaybox.relay._errors import LaneFaulty, LinkDown
from relaybox.relay._messages import Message
from relaybox.relay._plan import Breaker, BreakerState

ATTRIBUTES = ("1", "T", None, None, None, None, None, None)

A, B, C = uuid4(), uuid4(), uuid4()


def claim(number: int, batch_id: UUID, previous_id: UUID | None, *seqs: int) -> Claim:
    return Claim(number=number, batch_id=batch_id, previous_id=previous_id, seqs=seqs)


def message(seq: int, key: str = "a", attempts: int = 0) -> Message:
    return Message(seq, 0, 1, "t", key, attempts, b"{}", ATTRIBUTES, "binary", UUID(int=seq))


def batch(*messages: Message) -> LaneBatch:
    return LaneBatch(messages=messages, lanes=frozenset({0}), batch_id=A)


def test_batch_with_its_marker_in_kafka_was_published() -> None:
    plan = plan_recovery(0, B, None, [claim(1, A, None, 1, 2), claim(2, B, A, 3)])
    assert sorted(plan.published_seqs) == [1, 2, 3]
    assert (list(plan.obsolete), plan.last_id) == ([1], B), "the last one says all there is to say"


def test_batch_whose_predecessor_is_the_marker_was_not_published() -> None:
    plan = plan_recovery(0, A, None, [claim(1, A, None, 1, 2), claim(2, B, A, 3)])
    assert list(plan.published_seqs) == [1, 2]
    assert (list(plan.obsolete), plan.last_id) == ([2], A)


def test_first_batch_of_a_lane_without_marker_was_not_published() -> None:
    plan = plan_recovery(0, None, None, [claim(1, A, None, 1)])
    assert (list(plan.published_seqs), list(plan.obsolete), plan.last_id) == ([], [1], None)


@pytest.mark.guarantee("G31")
def test_abandoned_claim_is_not_published() -> None:
    """PostgreSQL did not respond when A was claimed; B followed the same batch, and was published."""
    plan = plan_recovery(0, B, None, [claim(1, A, None, 1), claim(2, B, None, 2)])
    assert (list(plan.published_seqs), list(plan.obsolete)) == ([2], [1])


def test_marker_whose_claim_was_removed_is_known_by_its_successor() -> None:
    plan = plan_recovery(0, A, None, [claim(2, B, A, 3)])
    assert (list(plan.published_seqs), list(plan.obsolete), plan.last_id) == ([], [2], A)


@pytest.mark.guarantee("G31")
@pytest.mark.parametrize(
    ("marker", "claims"),
    [
        (C, [claim(1, A, None, 1)]),  # the database was restored to a state before C
        (C, []),  # its tables were created again
        (None, [claim(2, B, A, 1)]),  # the control topic was lost
    ],
)
def test_marker_that_contradicts_the_claims_stops_the_lane(marker: UUID | None, claims: list[Claim]) -> None:
    with pytest.raises(LaneFaulty, match=str(marker or NO_MARKER)):
        plan_recovery(3, marker, None, claims)


def test_operator_may_accept_an_unknown_or_missing_marker() -> None:
    assert plan_recovery(0, C, C, [claim(1, A, None, 1)]).last_id == C
    assert plan_recovery(0, None, NO_MARKER, [claim(2, B, A, 1)]).last_id is None


@pytest.mark.guarantee("G25")
def test_breaker_counts_attempts_of_interrupted_rows_only() -> None:
    breaker, down = Breaker(), LinkDown("away")
    assert breaker.trip(down, [message(1)], 100.0)
    assert breaker.state is BreakerState.OPEN
    charged = []
    for now_s in (100.0, 100.5, 101.0, 102.9, 103.0, 106.9, 107.0, 200.0):
        charged += [(now_s, each.attempts) for each, _ in breaker.due(now_s)]
    assert charged == [(100.0, 0), (101.0, 1), (103.0, 2), (107.0, 3)]


@pytest.mark.guarantee("G25")
def test_breaker_closes_with_the_first_published_row() -> None:
    breaker = Breaker()
    breaker.trip(LinkDown("away"), [], 0.0)
    assert not breaker.published(), "an acknowledgement that was under way says nothing about now"
    breaker.note_response()
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.published()
    assert breaker.state is BreakerState.CLOSED
    assert not breaker.published()


def test_pauses_of_the_next_outage_begin_with_the_shortest() -> None:
    breaker = Breaker()
    breaker.trip(LinkDown("away"), [], 0.0)
    first = breaker.pause_s()
    breaker.failed_again()
    assert breaker.pause_s() > first
    breaker.note_response()
    breaker.published()
    breaker.trip(LinkDown("away"), [], 1.0)
    assert breaker.pause_s() == first


@pytest.mark.guarantee("G25")
def test_error_of_the_link_is_not_a_fault_of_a_row() -> None:
    away, refused = KafkaError(KafkaError._ALL_BROKERS_DOWN), KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
    assert not TransactionResult(state=TransactionState.UNPUBLISHED, error=away).refused
    assert TransactionResult(state=TransactionState.UNPUBLISHED, error=refused).refused
    assert not TransactionResult(state=TransactionState.COMMITTED).refused


def test_rows_of_a_rejected_transaction_are_published_one_by_one() -> None:
    isolator, refused = RejectionIsolator(), KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
    rows = [message(1), message(2), message(3, "b")]
    isolator.note_rejected(batch(*rows), refused)
    assert isolator.one_per_lane(rows) == rows[:1]

    isolator.note_rejected(batch(rows[0]), refused)
    isolator.confirm(0, last_id=B)
    [(culprit, fault)] = isolator.take_confirmed()
    assert (culprit.seq, fault.error_code) == (1, "RELAY_RECORD_REFUSED")
    assert isolator.without_keys_of(rows, [(culprit, fault)]) == rows[2:]
    assert isolator.take_confirmed() == []


def test_neither_of_two_rejected_rows_is_at_fault_until_published_alone() -> None:
    isolator, rows = RejectionIsolator(), [message(1), message(2, "b")]
    isolator.note_rejected(batch(*rows), KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    assert isolator.one_per_lane(rows) == rows[:1]
    isolator.confirm(0, last_id=B)
    assert isolator.take_confirmed() == []


def test_rejected_row_that_is_published_alone_is_not_at_fault() -> None:
    isolator = RejectionIsolator()
    isolator.note_rejected(batch(message(1)), KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    isolator.confirm(0, last_id=A)
    assert isolator.take_confirmed() == []
