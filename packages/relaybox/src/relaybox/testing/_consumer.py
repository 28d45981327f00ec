"""Consumers that process messages only while a test calls them."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from relaybox_types.envelope import EventEnvelope

from relaybox.consumers import MessageOutcome, MessageStepper, ProcessedMessage, Subscription
from relaybox.db import Database
from relaybox.operations import Letter, LetterSelection, list_letters
from relaybox.testing._topics import Partition, Topics

__all__ = ("HandlerRunner", "SteppedConsumer", "SteppedConsumers")

_LETTERS_MAX = 1_000


class SteppedConsumer:
    """A consumer of one group that reads the messages published since the test began.

    The consumer processes one message at a time, in the order of publication, with the transactions of a real
    consumer: the effect of a handler and the record that the group has processed the event commit together. A
    failing handler gets four attempts, without pauses between them; an error that no further attempt can
    change ends the attempts at once. Then the message, and later messages of its key, are parked as dead
    letters, unless the handler has ``on_failure="stop"``.
    """

    def __init__(
        self, database: Database, topics: Topics, names: Sequence[str], stepper: MessageStepper
    ) -> None:
        self._database = database
        self._topics = topics
        self._names = names
        self._stepper = stepper
        self._positions: dict[Partition, int] = {}
        self._read: deque[Any] = deque()

    @property
    def group(self) -> str:
        """Name of the consumer group."""
        return self._stepper.group

    async def step(self) -> ProcessedMessage | None:
        """Process the next message; return the outcome, or None if there is no message.

        Raises:
            HandlerFailed: A handler with ``on_failure="stop"`` failed on every attempt.
            EnvelopeInvalid, MessageTooLarge, EventVersionUnknown, EventUpcastFailed: The message cannot be
                read as an event, and its handler has ``on_failure="stop"``; if the type of the event is
                unknown, all handlers have it.
            DatabaseError: The database is unavailable, or rejects a statement.
        """
        if not self._read:
            await self._read_on()
        if not self._read:
            return None
        processed = await self._stepper.process(self._read[0])
        self._read.popleft()
        return processed

    async def drain(self) -> list[ProcessedMessage]:
        """Replay the dead letters whose replay was requested, then process all messages now on the topics.

        Returns:
            The outcome of each replayed dead letter, then of each message.

        Raises:
            HandlerFailed, DatabaseError: These and the other errors of :meth:`step`. The next call begins
                with the message that failed.
        """
        await self._read_on()
        done = await self._stepper.replay_requested(sorted(self._positions))
        while self._read:
            processed = await self.step()
            assert processed is not None
            done.append(processed)
        return done

    def rewind(self) -> None:
        """Begin again at the first message of the test, as after a reset of the group's offsets.

        The next calls deliver every event a second time; a test can assert that no event has a second effect.
        """
        self._positions.clear()
        self._read.clear()

    async def letters(self) -> list[Letter]:
        """Return the unresolved dead letters of the group, oldest first, 1,000 at most."""
        async with self._database.connection() as connection:
            return await list_letters(
                connection, LetterSelection(groups=[self.group]), letters_max=_LETTERS_MAX
            )

    async def _read_on(self) -> None:
        start = {**self._topics.start, **self._positions}
        messages, ends = await self._topics.read(self._names, start=start)
        self._read.extend(messages)
        self._positions.update(ends)


class SteppedConsumers:
    """Make consumers for a test; the fixture ``relaybox_consumer``."""

    def __init__(self, database: Database, topics: Topics) -> None:
        self._database = database
        self._topics = topics

    def __call__(
        self, *subscriptions: Subscription, topics: Sequence[str] = ("domain-events",)
    ) -> SteppedConsumer:
        """Return a consumer of *subscriptions*, all of one group, that begins where the test began.

        Args:
            subscriptions: The handlers, as for :class:`~relaybox.consumers.Consumer`.
            topics: The topics to read.

        Raises:
            SubscriptionInvalid: No subscription, several groups, or two handlers of one event type.
        """
        stepper = MessageStepper(self._database, subscriptions)
        return SteppedConsumer(self._database, self._topics, topics, stepper)


class HandlerRunner:
    """Run a handler without Kafka; the fixture ``run_handler``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __call__(
        self, subscription: Subscription, event: EventEnvelope, *, topic: str = "domain-events"
    ) -> MessageOutcome:
        """Run the handler once, in one transaction with the record that the group has processed *event*.

        Args:
            subscription: The handler, declared by :func:`~relaybox.consumers.subscribe`.
            event: The event; :func:`make_event` makes one. Its payload is converted to the version that the
                application declares for the event type.
            topic: The topic from which a consumer would have read the event.

        Returns:
            ``HANDLED`` if the transaction has committed. Otherwise nothing was done: ``ALREADY_DONE`` if the
            group had processed or parked the event before, ``BLOCKED`` if an unresolved dead letter blocks
            its key.

        Raises:
            SubscriptionInvalid: The group does not subscribe to the type of *event*.
            Exception: The error of the handler or of the database; the transaction was rolled back.
        """
        return await MessageStepper(self._database, [subscription]).handle(event, topic=topic)
