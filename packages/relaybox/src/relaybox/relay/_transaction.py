"""One lane's transactional producer: a batch and its marker are one Kafka transaction (G31)."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from relaybox.relay._delivery import LaneBatch
from relaybox.relay._errors import LinkDown, TransactionUnfinished
from relaybox.relay._link import PRODUCER, ROW_CODES, UNDELIVERED, discard, flush, produce
from relaybox.relay._markers import Markers

__all__ = ("INIT_S_MAX", "LaneProducer", "TransactionResult", "TransactionState")

#: Opening a lane takes half a second if a transaction has to be ended, seconds while a broker starts.
INIT_S_MAX: Final = 10.0
_INIT_S: Final = 2.0
_COMMIT_S: Final = 5.0
_COMMIT_S_MIN: Final = 0.1
#: PostgreSQL has so long to confirm a claim: all that time readers wait for the open transaction.
_CLAIM_S: Final = 10.0
#: A commit is repeated as long as its errors are retriable, but no longer than this; then the marker decides.
_COMMIT_S_MAX: Final = 15.0
_PRODUCER: Final[dict[str, Any]] = {
    **PRODUCER,
    "retry.backoff.ms": 10,
    # Longer than a broker takes to restart: a shorter one kills what is in flight then.
    "transaction.timeout.ms": 45_000,
    # Must not exceed the transaction's.
    "message.timeout.ms": 40_000,
}


class TransactionState(Enum):
    """What is known of a transaction after :meth:`LaneProducer.publish`."""

    COMMITTED = "committed"
    #: Its commit was never asked for, and cannot be any more.
    UNPUBLISHED = "unpublished"
    #: Taken back: PostgreSQL has not confirmed the claim, or the lane has another owner.
    UNCLAIMED = "unclaimed"
    #: Only the marker knows.
    IN_DOUBT = "in-doubt"


@dataclass(frozen=True, kw_only=True, slots=True)
class TransactionResult:
    """How a transaction ended. Unless it was committed, the producer is of no more use."""

    state: TransactionState
    #: Why it failed; a verdict about a record comes first.
    error: KafkaError | None = None

    @property
    def refused(self) -> bool:
        """Whether a record was the reason, and not the link."""
        return self.error is not None and self.error.code() in ROW_CODES


class LaneProducer:
    """The producer with one of a lane's ``transactional.id``; opening it fences all others with that id.

    Invariant: nothing is inferred from an error of the commit, whose answer may have been lost.
    Blocking; to be used by one thread at a time.
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        markers: Markers,
        lane: int,
        number: int,
        *,
        batch_bytes: int,
        deadline: Callable[[], float],
    ) -> None:
        self.batch_bytes = batch_bytes
        self._deadline = deadline
        self._markers = markers
        self._lane = lane
        #: Which of the lane's producers this one is.
        self.number = number
        self._id = markers.transactional_id(lane, number)
        self._producer = Producer(
            {
                **connection,
                **_PRODUCER,
                "transactional.id": self._id,
                "batch.size": batch_bytes,
            }
        )

    def open(self, limit_s: float = INIT_S_MAX) -> None:
        """End the last transaction of this ``transactional.id`` and fence its other producers.

        Raises:
            TransactionUnfinished: That transaction has not ended within *limit_s*.
            LinkDown: The brokers did not manage in time; to be tried with a new producer.
        """
        until_s = time.monotonic() + limit_s
        while True:
            try:
                self._producer.init_transactions(_INIT_S)
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                if not reason.retriable() or time.monotonic() > min(until_s, self._deadline()):
                    if reason.code() == KafkaError.CONCURRENT_TRANSACTIONS:
                        raise TransactionUnfinished(
                            f"the last transaction of {self._id} has not ended"
                        ) from error
                    raise LinkDown(f"the lane's producer cannot start: {reason.str()}") from error
            else:
                return

    def publish(self, batch: LaneBatch) -> TransactionResult:
        """Publish *batch* and the marker that says so, all or nothing; committed only when it is claimed."""
        failures: list[KafkaError] = []
        note = partial(_note_failure, failures)
        try:
            self._producer.begin_transaction()
            for message in batch.messages:
                produce(self._producer, message, note, self._deadline)
            no_marker = partial(_note_no_marker, failures)
            self._markers.produce(self._producer, self._lane, batch.batch_id, no_marker)
            if not flush(self._producer, self._deadline):
                failures.append(UNDELIVERED)
        except KafkaException as error:
            failures.append(error.args[0])
        if failures:
            return TransactionResult(state=TransactionState.UNPUBLISHED, error=_worst(failures))
        return self._commit() if _is_claimed(batch) else self._take_back()

    def close(self) -> None:
        """Take back what is not acknowledged; its transaction ends when the lane is next opened."""
        discard(self._producer)

    def _take_back(self) -> TransactionResult:
        with suppress(KafkaException):  # whoever opens the lane next ends it; until then its readers wait
            self._producer.abort_transaction(self._commit_s())
        return TransactionResult(state=TransactionState.UNCLAIMED)

    def _commit(self) -> TransactionResult:
        until_s = time.monotonic() + _COMMIT_S_MAX
        while True:
            try:
                self._producer.commit_transaction(self._commit_s())
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                if not reason.retriable() or time.monotonic() > min(until_s, self._deadline()):
                    return TransactionResult(state=TransactionState.IN_DOUBT, error=reason)
            else:
                return TransactionResult(state=TransactionState.COMMITTED)

    def _commit_s(self) -> float:
        return max(_COMMIT_S_MIN, min(_COMMIT_S, self._deadline() - time.monotonic()))


def _is_claimed(batch: LaneBatch) -> bool:
    try:
        return batch.number.result(_CLAIM_S) is not None
    except TimeoutError:  # should it come after all, it is one whose marker is missing: its rows stay PENDING
        return False


def _note_failure(failures: list[KafkaError], error: KafkaError | None, _message: object) -> None:
    if error is not None:
        failures.append(error)


def _note_no_marker(failures: list[KafkaError], error: KafkaError | None, _message: object) -> None:
    if error is not None:
        failures.append(UNDELIVERED)  # whatever is wrong with the control topic, no row is to blame


def _worst(failures: Sequence[KafkaError]) -> KafkaError:
    return next((error for error in failures if error.code() in ROW_CODES), failures[0])
