"""Process the messages of a group one at a time, without Kafka and without pauses: for tests of handlers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from relaybox_types.envelope import EventEnvelope

from relaybox.consumers._dead_letter_topic import dead_letter_topic
from relaybox.consumers._dead_letters import DeadLetters
from relaybox.consumers._errors import KeyBlocked, SubscriptionInvalid
from relaybox.consumers._key_queue import Parking, Replay
from relaybox.consumers._message import Message, Partition, message_from_kafka
from relaybox.consumers._policy import DATABASE_ERRORS, Retry, decide_after_failure
from relaybox.consumers._processor import Delivery, Outcome, Processor
from relaybox.consumers._replayer import ReplayFailed
from relaybox.consumers._statistics import ConsumerSignal
from relaybox.consumers._subscription import Subscription, one_group
from relaybox.db import Database
from relaybox.signals import SignalEmitter

__all__ = ("MessageOutcome", "MessageStepper", "ProcessedMessage")

_MESSAGE_BYTES_MAX: Final = 1_048_576


class MessageOutcome(StrEnum):
    """The outcome of a message or of a replayed dead letter."""

    #: The handler's transaction has committed.
    HANDLED = "HANDLED"
    #: The group had processed or parked the event before; nothing was done.
    ALREADY_DONE = "ALREADY_DONE"
    #: The group does not subscribe to the type of the event.
    SKIPPED = "SKIPPED"
    #: A dead letter blocks the key of the event; nothing was done.
    BLOCKED = "BLOCKED"
    #: The message is a dead letter now: its handler failed on every attempt, or an earlier message of its key
    #: is parked.
    PARKED = "PARKED"
    #: A dead letter was replayed.
    REPLAYED = "REPLAYED"
    #: The handler of a replayed dead letter failed; the letter is parked again.
    REPLAY_FAILED = "REPLAY_FAILED"


_OUTCOMES: Final = {
    Outcome.COMMITTED: MessageOutcome.HANDLED,
    Outcome.ALREADY_DONE: MessageOutcome.ALREADY_DONE,
    Outcome.BLOCKED: MessageOutcome.BLOCKED,
    Outcome.PARKED: MessageOutcome.PARKED,
}


@dataclass(frozen=True, kw_only=True, repr=False)
class ProcessedMessage:
    """A message, or a replayed dead letter, and its outcome."""

    outcome: MessageOutcome
    topic: str
    partition: int
    #: None for a replayed dead letter.
    offset: int | None
    #: None for a message without a key.
    key: str | None
    #: The ``ce_type`` header; None if it is missing, and for a replayed dead letter.
    event_type: str | None
    #: Failed attempts of the handler.
    attempts: int = 0
    #: The failure of the last attempt, or KeyBlocked if a message is parked behind a dead letter; else None.
    failure: BaseException | None = None

    def __repr__(self) -> str:
        where = f"{self.topic}[{self.partition}]" + ("" if self.offset is None else f"@{self.offset}")
        what = "" if self.event_type is None else f" {self.event_type}"
        why = "" if self.failure is None else f" after {self.attempts} attempts: {self.failure!r}"
        return f"<{self.outcome}{what} key={self.key!r} {where}{why}>"


class MessageStepper:
    """Process messages of one group as a :class:`Consumer` does, one after the other, when a test calls it.

    The transactions, the number of attempts and the dead letters are those of a consumer. There are three
    differences: attempts follow each other without a pause, each event has a transaction of its own, and an
    error of the database is raised, where a consumer waits for the database.
    """

    def __init__(
        self,
        database: Database,
        subscriptions: Iterable[Subscription],
        *,
        message_bytes_max: int = _MESSAGE_BYTES_MAX,
    ) -> None:
        """Check the subscriptions.

        Args:
            database: Has ``consumed_events`` and the tables that the handlers write.
            subscriptions: Handlers of one group, each event type at most once.
            message_bytes_max: A larger message is parked without calling its handler.

        Raises:
            SubscriptionInvalid: No subscription, several groups, or two handlers of one event type.
        """
        declared = tuple(subscriptions)
        self.group = one_group(declared)
        self._processor = Processor(
            database,
            declared,
            DeadLetters(self.group, dead_letter_topic(None, ())),
            SignalEmitter[ConsumerSignal](),
            concurrency=1,
            message_bytes_max=message_bytes_max,
        )

    async def handle(self, event: EventEnvelope, *, topic: str = "domain-events") -> MessageOutcome:
        """Handle *event* in one attempt, with the record that the group has processed the event.

        Args:
            event: The event.
            topic: The topic from which a consumer would have read the event.

        Returns:
            ``HANDLED``; ``ALREADY_DONE``, and nothing was done, if the group had processed or parked the
            event; ``BLOCKED``, and nothing was done, if a dead letter blocks the key.

        Raises:
            SubscriptionInvalid: The group does not subscribe to the type of *event*.
            Exception: The error of the handler or of the database; the transaction was rolled back.
        """
        message = _message_of(event, topic)
        read = self._processor.read(message)
        if read is None:
            types = ", ".join(sorted(self._processor.event_types))
            raise SubscriptionInvalid(
                f"group {self.group!r} subscribes to {types}, not to {event.event_type}; pass an event of a "
                "type to which the group subscribes, or subscribe to this type"
            )
        [outcome] = await self._processor.handle([Delivery(message, read)])
        return _OUTCOMES[outcome]

    async def process(self, message: Any) -> ProcessedMessage:
        """Process *message* until it is handled, skipped or parked.

        Args:
            message: A message of a ``confluent_kafka.Consumer``.

        Raises:
            HandlerFailed: A handler with ``on_failure="stop"`` failed on every attempt.
            EnvelopeInvalid: The message is not an event, and every subscription has ``on_failure="stop"``.
            MessageTooLarge, EventVersionUnknown, EventUpcastFailed: A handler with ``on_failure="stop"``
                cannot be called with the message.
            DatabaseError: The database is unavailable, or rejects a statement.
        """
        return await self._process(message_from_kafka(message))

    async def _process(self, message: Message) -> ProcessedMessage:
        attempts = 0
        while True:
            try:
                outcome = await self._attempt(message)
            except DATABASE_ERRORS:
                raise
            except Exception as error:  # noqa: BLE001 - any error of the application counts
                attempts += 1
                if self._retries(error, attempts):
                    continue
                if self._processor.stops_at(message):
                    stopped = self._processor.stopped_by(message, attempts, error)
                    raise stopped from stopped.__cause__
                return await self._park(message, Parking(failure=error, attempts=attempts))
            if outcome is not MessageOutcome.BLOCKED:
                return _result(message, outcome, attempts=attempts)
            parked = await self._park(message, Parking(failure=KeyBlocked(), attempts=0))
            if parked.outcome is not MessageOutcome.BLOCKED:
                return parked

    async def _attempt(self, message: Message) -> MessageOutcome:
        event = self._processor.read(message)
        if event is None:
            return MessageOutcome.SKIPPED
        [outcome] = await self._processor.handle([Delivery(message, event)])
        return _OUTCOMES[outcome]

    @staticmethod
    def _retries(error: BaseException, attempts: int) -> bool:
        return isinstance(decide_after_failure(error, failures=attempts, database_failures=0), Retry)

    async def _park(self, message: Message, parking: Parking) -> ProcessedMessage:
        outcome = await self._processor.park(message, parking)
        # NOT_BLOCKED: an operator resolved the letter in the meantime; the caller tries again.
        became = MessageOutcome.BLOCKED if outcome is Outcome.NOT_BLOCKED else _OUTCOMES[outcome]
        return _result(message, became, attempts=parking.attempts, failure=parking.failure)

    async def replay_requested(self, partitions: Sequence[Partition]) -> list[ProcessedMessage]:
        """Replay the dead letters of *partitions* whose replay was requested, in order per key.

        Returns the letters in the order of their replays.

        Raises:
            DatabaseError: The database is unavailable, or rejects a statement.
        """
        done: list[ProcessedMessage] = []
        starts = dict.fromkeys(partitions, b"")
        while True:
            found = await self._processor.replayer.requested(starts)
            starts = {one.partition: one.next_start for one in found}
            replays = [replay for one in found for replay in one.replays]
            for replay in replays:
                done += await self._replay_key(replay)
            if not replays and not any(starts.values()):
                return done

    async def _replay_key(self, replay: Replay) -> list[ProcessedMessage]:
        """Replay the requested letters of a key, or the one letter that blocks no key."""
        done: list[ProcessedMessage] = []
        while (one := await self._replay(replay)) is not None:
            done.append(one)
            if replay.key is None or one.outcome is not MessageOutcome.REPLAYED:
                break
        return done

    async def _replay(self, replay: Replay) -> ProcessedMessage | None:
        """Replay the next letter of *replay*; return None if its replay is not requested."""
        attempts = 0
        while True:
            try:
                replayed = await self._processor.replayer.replay(replay)
            except ReplayFailed as error:
                attempts += 1
                failure = error.__cause__
                assert failure is not None
                if isinstance(failure, DATABASE_ERRORS):
                    raise failure from None
                if self._retries(failure, attempts):
                    continue
                parking = Parking(failure=failure, attempts=attempts, letter_id=error.letter_id)
                await self._processor.replayer.park_again(replay, parking)
                return _replayed(replay, MessageOutcome.REPLAY_FAILED, attempts, failure)
            return _replayed(replay, MessageOutcome.REPLAYED, attempts, None) if replayed.letters else None


def _message_of(event: EventEnvelope, topic: str) -> Message:
    """Return *event* as a message at partition 0 and offset 0, whose only header is ``ce_type``."""
    return Message(
        partition=(topic, 0),
        offset=0,
        key=event.aggregate_id.encode(),
        value=event.model_dump_json().encode(),
        headers=(("ce_type", event.event_type.encode()),),
    )


def _text(key: bytes | None) -> str | None:
    return None if key is None else key.decode(errors="backslashreplace")


def _result(
    message: Message, outcome: MessageOutcome, *, attempts: int, failure: BaseException | None = None
) -> ProcessedMessage:
    topic, partition = message.partition
    return ProcessedMessage(
        outcome=outcome,
        topic=topic,
        partition=partition,
        offset=message.offset,
        key=_text(message.key),
        event_type=message.header_type,
        attempts=attempts,
        failure=failure,
    )


def _replayed(
    replay: Replay, outcome: MessageOutcome, attempts: int, failure: BaseException | None
) -> ProcessedMessage:
    topic, partition = replay.partition
    return ProcessedMessage(
        outcome=outcome,
        topic=topic,
        partition=partition,
        offset=None,
        key=_text(replay.key),
        event_type=None,
        attempts=attempts,
        failure=failure,
    )
