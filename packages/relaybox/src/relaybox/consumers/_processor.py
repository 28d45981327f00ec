"""The transactions of a consumer: handle events, park a message."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import Enum, auto
from functools import partial
from itertools import groupby
from time import monotonic
from typing import Any, Final, NamedTuple

import structlog
from relaybox_types.envelope import EventEnvelope
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.contextvars import bound_contextvars

from relaybox.consumers._application import await_in_transaction, log_call, place_of
from relaybox.consumers._crash_watch import ON_PARKED_PROCESSES_MAX, CrashWatch
from relaybox.consumers._dead_letters import DeadLetters
from relaybox.consumers._errors import (
    EnvelopeInvalid,
    HandlerEndedProcess,
    HandlerFailed,
    HandlerMissing,
    KeyBlocked,
    MessageTooLarge,
)
from relaybox.consumers._key_queue import Parking
from relaybox.consumers._message import Message, parse_event
from relaybox.consumers._park_requests import ParkRequests
from relaybox.consumers._policy import DATABASE_ERRORS, PERMANENT_ERRORS
from relaybox.consumers._replayer import Replayer
from relaybox.consumers._statistics import ConsumerSignal, HandlerDurations, LetterCounts
from relaybox.consumers._subscription import EventTransaction, Subscription
from relaybox.db import (
    Database,
    RetryTransaction,
    executor_of,
    load_queries,
    map_database_errors,
    map_service_errors,
)
from relaybox.events import EventTypes
from relaybox.signals import SignalEmitter
from relaybox.telemetry import traceback_of

__all__ = ("Delivery", "Outcome", "Processor")

_SQL: Final = load_queries(__package__ or "relaybox.consumers", "consumers.sql")
#: Seconds by which PostgreSQL's idle limit of a transaction exceeds the time limit of the handler in it.
_IDLE_MARGIN_S: Final = 5.0
_log: Final = structlog.stdlib.get_logger(__name__)


class Outcome(Enum):
    """What a transaction did with a message and the event in it."""

    COMMITTED = auto()
    #: The group had processed or parked the event or message before; nothing was done.
    ALREADY_DONE = auto()
    #: A dead letter blocks the key of the message; nothing was done.
    BLOCKED = auto()
    PARKED = auto()
    #: The message was to be parked behind a dead letter, but none blocks its key any more; nothing was done.
    NOT_BLOCKED = auto()


_SIGNALS: Final = {
    Outcome.COMMITTED: ConsumerSignal.COMMITTED,
    Outcome.ALREADY_DONE: ConsumerSignal.ALREADY_DONE,
    Outcome.PARKED: ConsumerSignal.PARKED,
}


class Delivery(NamedTuple):
    """A message and the event in it."""

    message: Message
    event: EventEnvelope


class _Claimed(NamedTuple):
    """A message whose event was not processed before, and the transaction in which it is handled."""

    message: Message
    unit: EventTransaction


class _OnParkedFailed(Exception):
    """The application's ``on_parked`` failed; the cause is the failure."""


class Processor:
    """Execute the transactions of one group: handle events, park messages; ``replayer`` replays letters."""

    def __init__(
        self,
        database: Database,
        subscriptions: Iterable[Subscription],
        letters: DeadLetters,
        signals: SignalEmitter[ConsumerSignal],
        *,
        concurrency: int,
        message_bytes_max: int,
    ) -> None:
        self._database = database
        self._by_type = {
            name: subscription for subscription in subscriptions for name in subscription.event_types
        }
        self._group = letters.group
        limits = [one.transaction_events_max for one in self._by_type.values()]
        begun_max, self._replay_letters_max = concurrency * max(limits), min(limits)
        self.crash_watch = CrashWatch(database, self._group, messages=begun_max, letters=min(limits))
        self._signals = signals
        self._message_bytes_max = message_bytes_max
        self.event_types = frozenset(self._by_type)
        self._declared = EventTypes(one for handler in self._by_type.values() for one in handler.declared)
        self._letters = letters
        self.durations = HandlerDurations()
        self._closing = False
        self.park_requests = ParkRequests(letters.group)
        self.replayer = Replayer(
            database,
            letters,
            read=self._read_subscribed,
            call_handler=self._call_handler,
            crash_watch=self.crash_watch,
            signals=signals,
        )

    def subscription(self, event: EventEnvelope) -> Subscription:
        """Return the subscription of *event*'s type, which must be one of ``event_types``."""
        return self._by_type[event.event_type]

    def close(self) -> None:
        """Treat a later cancellation as the end of the consumer, not as an error of a handler."""
        self._closing = True

    def transaction_events_max(self, message: Message) -> int:
        """Return how many events, that of *message* included, may share one transaction.

        1 if the group does not subscribe to the type in the message's header, or while a crash is watched.
        """
        subscription = self._by_type.get(message.header_type or "")
        if subscription is None or self.crash_watch.is_watching:
            return 1
        return subscription.transaction_events_max

    @property
    def replay_letters_max(self) -> int:
        """How many letters of a key may share a transaction: the lowest limit of all subscriptions."""
        return 1 if self.crash_watch.is_watching else self._replay_letters_max

    def stops_at(self, message: Message) -> bool:
        """Return whether a failure of *message* stops the consumer, as the event's subscription says.

        A message that is not an event has no subscription: it stops the consumer if every subscription has
        ``on_failure="stop"``.
        """
        event = self._event_if_valid(message)
        subscribed = self._by_type.values() if event is None else (self.subscription(event),)
        return all(one.on_failure == "stop" for one in subscribed)

    def stopped_by(self, message: Message, attempts: int, failure: BaseException) -> BaseException:
        """Return the error that ends the consumer because *message* failed *attempts* times.

        A *failure* that no further attempt can change is returned as it is. Any other *failure* becomes the
        cause of a :class:`HandlerFailed`.
        """
        if isinstance(failure, PERMANENT_ERRORS):
            return failure
        topic, partition = message.partition
        event = self._read(message)
        assert event is not None
        stopped = HandlerFailed(
            group=self._group,
            topic=topic,
            partition=partition,
            offset=message.offset,
            event_id=event.event_id,
            attempts=attempts,
        )
        stopped.__cause__ = failure
        return stopped

    def read(self, message: Message) -> EventEnvelope | None:
        """Return the event in *message*; None if the group does not subscribe to its type.

        Raises:
            EnvelopeInvalid: The message is not an event.
            MessageTooLarge: The message is larger than ``message_bytes_max``.
            EventVersionUnknown: The event has a version above the declared version, or below 1.
            EventUpcastFailed: An upcaster failed.
            ParkedByOperator: An operator requested that the message be parked.
        """
        event = self._read(message)
        if event is not None:
            self.park_requests.check(message)
        return event

    def _read(self, message: Message) -> EventEnvelope | None:
        if message.bytes > self._message_bytes_max:
            topic, partition = message.partition
            raise MessageTooLarge(
                topic=topic,
                partition=partition,
                offset=message.offset,
                bytes_=message.bytes,
                bytes_max=self._message_bytes_max,
            )
        event = self._parse(message)
        return None if event is None else self._declared.upcast_envelope(event)

    def _read_subscribed(self, message: Message) -> EventEnvelope:
        event = self._read(message)
        if event is None:
            raise HandlerMissing(group=self._group, event_type=message.header_type or "this event type")
        return event

    def _parse(self, message: Message) -> EventEnvelope | None:
        return parse_event(message, group=self._group, event_types=self.event_types)

    async def handle(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """Handle events of different keys in one transaction; return their outcomes in the same order.

        Raises:
            Exception: The failure of a handler or of the database. No event took effect, unless the
                connection broke during COMMIT.
        """
        claimed: list[_Claimed] = []

        async def work(db: AsyncSession) -> list[Outcome]:
            claimed.clear()
            claims = await self._claim(db, deliveries)
            outcomes: list[Outcome] = []
            for message, event in deliveries:
                outcomes.append(claims.get(event.event_id, Outcome.ALREADY_DONE))
                if outcomes[-1] is Outcome.COMMITTED:
                    # Another message with the same event, under another key, has no effect.
                    del claims[event.event_id]
                    claimed.append(_Claimed(message, EventTransaction(db=db, event=event)))
            await self._call_handlers(claimed)
            return outcomes

        messages = [message for message, _ in deliveries]
        async with self.crash_watch.calling(messages):
            outcomes = await self._database.run_in_transaction(work)
        for message, outcome in zip(messages, outcomes, strict=True):
            if outcome is not Outcome.BLOCKED:
                self.crash_watch.finished(message, handled=outcome is Outcome.COMMITTED)
            self._emit(outcome)
        for one in claimed:
            one.unit.run_commit_actions()
        return outcomes

    def _emit(self, outcome: Outcome) -> None:
        if (signal := _SIGNALS.get(outcome)) is not None:
            self._signals.emit(signal)

    async def _claim(self, db: AsyncSession, deliveries: Sequence[Delivery]) -> dict[Any, Outcome]:
        # The first statement: another consumer of one of these events waits here until this transaction ends.
        with map_service_errors():
            rows = await executor_of(db).fetch(
                _SQL["claim_events"],
                self._group,
                [event.event_id for _, event in deliveries],
                [message.partition[0] for message, _ in deliveries],
                [
                    message.key if self.subscription(event).order == "key" else None
                    for message, event in deliveries
                ],
            )
        return {row["event_id"]: Outcome.BLOCKED if row["blocked"] else Outcome.COMMITTED for row in rows}

    async def _call_handlers(self, claimed: Sequence[_Claimed]) -> None:
        for _, group in groupby(claimed, key=lambda one: id(self.subscription(one.unit.event))):
            alike = list(group)
            units = [one.unit for one in alike]
            joint = self.subscription(units[0].event).joint_handler
            if joint is not None and len(units) > 1:
                for message, unit in alike:
                    log_call(self._group, message, unit.event.event_id)
                await self._call(units[0], partial(joint, units))
            else:
                for message, unit in alike:
                    log_call(self._group, message, unit.event.event_id)
                    await self._call_handler(unit)

    async def _call_handler(self, unit: EventTransaction) -> None:
        event = unit.event
        names = {"event_id": str(event.event_id), "correlation_id": str(event.correlation_id)}
        with bound_contextvars(**names, event_type=event.event_type):
            await self._call(unit, partial(self.subscription(event), event, unit))

    async def _call(self, unit: EventTransaction, handler: Callable[[], Awaitable[None]]) -> None:
        """Call *handler* within its time limit, in the transaction of *unit*, which other units may share."""
        timeout_s = self.subscription(unit.event).handler_timeout_s
        await self._allow_idle(unit.db, timeout_s)
        began_s = monotonic()
        try:
            await await_in_transaction(unit.db, handler(), timeout_s, lambda: self._closing)
        finally:
            self.durations.count(monotonic() - began_s)

    async def _allow_idle(self, db: AsyncSession, timeout_s: float) -> None:
        """Raise the transaction's idle limit to 5 s above *timeout_s*, if PostgreSQL's limit is lower."""
        needed_ms = int((timeout_s + _IDLE_MARGIN_S) * 1_000)
        if needed_ms > self._database.settings.idle_in_transaction_timeout_ms:
            with map_service_errors():
                await executor_of(db).fetch(_SQL["allow_idle"], str(needed_ms))

    async def park(self, message: Message, parking: Parking, *, last_attempt: bool = True) -> Outcome:
        """Record *message* as a dead letter in a new transaction, so that its offset may be committed.

        Args:
            message: The message.
            parking: Why the message is parked.
            last_attempt: What follows if ``on_parked`` fails with a database error: if True, the message is
                parked without ``on_parked``; otherwise the error is raised.

        Returns:
            ``PARKED``; ``ALREADY_DONE`` if the group had processed or parked the message before; or
            ``NOT_BLOCKED`` if an earlier letter was the reason to park it, but no letter blocks its key now.
        """
        event = self._event_if_valid(message)
        units: list[EventTransaction] = []

        async def work(db: AsyncSession) -> Outcome:
            units.clear()
            outcome = await self._park(db, message, event, parking)
            if outcome is Outcome.PARKED and event is not None:
                units.append(EventTransaction(db=db, event=event))
                await self._call_on_parked(units[-1], parking.failure, last_attempt=last_attempt)
            return outcome

        try:
            outcome = await self._database.run_in_transaction(work)
        except (_OnParkedFailed, RetryTransaction) as error:
            if not last_attempt and isinstance(error, RetryTransaction):
                raise
            # A new transaction, not a savepoint: a cancelled statement of on_parked may end the connection.
            _log.error(
                "on_parked failed; message parked without its changes",
                **place_of(self._group, message),
                traceback=traceback_of(error),
            )
            units.clear()
            outcome = await self._database.run_in_transaction(
                lambda db: self._park(db, message, event, parking)
            )
        self._emit(outcome)
        if outcome is Outcome.PARKED:
            self.crash_watch.finished(message)
        for unit in units:
            unit.run_commit_actions()
        return outcome

    def _event_if_valid(self, message: Message) -> EventEnvelope | None:
        try:
            return self._parse(message)
        except EnvelopeInvalid:
            return None

    async def _park(
        self, db: AsyncSession, message: Message, event: EventEnvelope | None, parking: Parking
    ) -> Outcome:
        blocked = isinstance(parking.failure, KeyBlocked)
        if blocked and not await self._letters.lock_blocking(executor_of(db), message):
            return Outcome.NOT_BLOCKED
        subscribed = self._by_type.values() if event is None else (self.subscription(event),)
        holds_key = any(one.order == "key" for one in subscribed)
        if not await self._letters.park(db, message, event, parking, holds_key=holds_key):
            return Outcome.ALREADY_DONE
        return Outcome.PARKED

    async def _call_on_parked(
        self, unit: EventTransaction, failure: BaseException, *, last_attempt: bool
    ) -> None:
        subscription = self.subscription(unit.event)
        if subscription.on_parked is None or isinstance(failure, KeyBlocked):
            return
        if isinstance(failure, HandlerEndedProcess) and failure.processes >= ON_PARKED_PROCESSES_MAX:
            _log.error("processes ended; message parked without on_parked", event_id=str(unit.event.event_id))
            return
        await self._allow_idle(unit.db, subscription.handler_timeout_s)
        try:
            with map_database_errors():
                call = subscription.on_parked(unit.event, failure, unit)
                timeout_s = subscription.handler_timeout_s
                await await_in_transaction(unit.db, call, timeout_s, lambda: self._closing)
        except RetryTransaction:
            raise
        except Exception as error:
            if not last_attempt and isinstance(error, DATABASE_ERRORS):
                raise
            raise _OnParkedFailed from error

    async def count_letters(self) -> LetterCounts:
        """Count the group's unresolved dead letters."""
        async with self._database.service_connection() as connection:
            return await self._letters.count_unresolved(connection)
