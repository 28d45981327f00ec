"""Process one event in one transaction, and retry when that fails."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from enum import auto
from typing import Final, assert_never

import structlog
from relaybox_types.envelope import EventEnvelope
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.contextvars import bound_contextvars

from relaybox.consumers._errors import HandlerFailed
from relaybox.consumers._message import Message, parse_event
from relaybox.consumers._partition_queue import PartitionQueue
from relaybox.consumers._subscription import EventTransaction, Subscription
from relaybox.db import (
    TRANSIENT_ERRORS,
    Database,
    DatabaseRefused,
    executor_of,
    load_queries,
    map_service_errors,
)
from relaybox.signals import Signal, SignalEmitter
from relaybox.telemetry import traceback_of

__all__ = ("ConsumerSignal", "EventProcessor", "GiveUp", "Retry", "WaitForDatabase", "decide_after_failure")

_SQL: Final = load_queries(__package__ or "relaybox.consumers", "consumers.sql")
_log: Final = structlog.stdlib.get_logger(__name__)
#: Errors that do not count as failures of the handler.
_DATABASE_ERRORS: Final = (*TRANSIENT_ERRORS, DatabaseRefused)
#: Pauses before the second, third and fourth attempt.
_RETRY_PAUSES_S: Final = (1.0, 2.0, 4.0)
_DATABASE_PAUSE_S: Final = 0.1
_DATABASE_PAUSE_S_MAX: Final = 5.0


class ConsumerSignal(Signal):
    """A step of a consumer."""

    ASSIGNED = auto()
    REVOKED = auto()
    COMMITTED = auto()  # the handler's transaction
    ALREADY_DONE = auto()
    TYPE_NOT_SUBSCRIBED = auto()
    RETRYING = auto()
    WAITING_FOR_DATABASE = auto()
    OFFSETS_COMMITTED = auto()
    PAUSED = auto()
    RESUMED = auto()
    KAFKA_UNAVAILABLE = auto()


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Run the handler again after a pause; the failure uses up one of its four attempts."""

    pause_s: float


@dataclass(frozen=True, kw_only=True)
class WaitForDatabase:
    """Run the handler again after a pause; the database error uses up none of its attempts."""

    pause_s: float


@dataclass(frozen=True, kw_only=True)
class GiveUp:
    """Stop the consumer without committing the offset of this event."""


def decide_after_failure(
    failure: Exception, *, failures: int, database_failures: int
) -> Retry | WaitForDatabase | GiveUp:
    """Decide what follows *failure*.

    A handler gets four attempts, 1 s, 2 s and 4 s apart. A database that is unavailable, overloaded, or
    rejects the consumer's own statement is retried without limit, in pauses that double up to 5 s.

    Args:
        failure: The error of the last attempt.
        failures: Failures of the handler so far, this one included.
        database_failures: Database errors so far, this one included.
    """
    if isinstance(failure, _DATABASE_ERRORS):
        pause_s = _DATABASE_PAUSE_S * 2.0 ** min(database_failures - 1, 10)
        return WaitForDatabase(pause_s=min(pause_s, _DATABASE_PAUSE_S_MAX))
    if failures > len(_RETRY_PAUSES_S):
        return GiveUp()
    return Retry(pause_s=_RETRY_PAUSES_S[failures - 1])


class EventProcessor:
    """Run the handlers of one group, one transaction per event."""

    def __init__(
        self,
        database: Database,
        subscriptions: Iterable[Subscription],
        *,
        group: str,
        concurrency: int,
        signals: SignalEmitter[ConsumerSignal],
    ) -> None:
        self._database = database
        self._by_type = {
            name: subscription for subscription in subscriptions for name in subscription.event_types
        }
        self._group = group
        self._slots = asyncio.Semaphore(concurrency)
        self._signals = signals
        self.event_types = frozenset(self._by_type)

    async def process(self, message: Message, queue: PartitionQueue) -> bool:
        """Process *message*; return False if *queue* was closed before the message was processed.

        Raises:
            EnvelopeInvalid: The message is not an event.
            HandlerFailed: The handler failed on every attempt.
        """
        event = parse_event(message, group=self._group, event_types=self.event_types)
        if event is None:
            self._signals.emit(ConsumerSignal.TYPE_NOT_SUBSCRIBED)
            return True
        names = {"event_id": str(event.event_id), "correlation_id": str(event.correlation_id)}
        with bound_contextvars(**names, event_type=event.event_type):
            return await self._process_with_retries(event, message, queue)

    async def _process_with_retries(
        self, event: EventEnvelope, message: Message, queue: PartitionQueue
    ) -> bool:
        failures = database_failures = 0
        while True:
            try:
                async with self._slots:
                    if queue.closing.is_set():
                        return False
                    await self._attempt(event)
            except Exception as error:  # noqa: BLE001 - a handler may raise anything; decide_after_failure decides
                failure = error
            else:
                return True
            counts = not isinstance(failure, _DATABASE_ERRORS)
            failures, database_failures = failures + counts, database_failures + (not counts)
            step = decide_after_failure(failure, failures=failures, database_failures=database_failures)
            if isinstance(step, GiveUp):
                raise self._failed(event, message, failures) from failure
            self._report(step, failure)
            if not await queue.pause(step.pause_s):
                return False

    async def _attempt(self, event: EventEnvelope) -> None:
        unit = await self._database.run_in_transaction(lambda db: self._run_handler(event, db))
        if unit is None:
            self._signals.emit(ConsumerSignal.ALREADY_DONE)
            return
        self._signals.emit(ConsumerSignal.COMMITTED)
        unit.run_commit_actions()

    async def _run_handler(self, event: EventEnvelope, db: AsyncSession) -> EventTransaction | None:
        # First: a second consumer of the group waits here until the first transaction has ended.
        with map_service_errors():
            claimed = await executor_of(db).fetch(_SQL["claim_event"], self._group, event.event_id)
        if not claimed:
            return None
        unit = EventTransaction(db=db, event=event)
        await self._by_type[event.event_type](event, unit)
        return unit

    def _report(self, step: Retry | WaitForDatabase, failure: Exception) -> None:
        match step:
            case Retry():
                _log.warning(
                    "handler failed; retrying", pause_s=step.pause_s, traceback=traceback_of(failure)
                )
                self._signals.emit(ConsumerSignal.RETRYING)
            case WaitForDatabase():
                _log.warning("waiting for the database", pause_s=step.pause_s, reason=str(failure))
                self._signals.emit(ConsumerSignal.WAITING_FOR_DATABASE)
            case _:
                assert_never(step)

    def _failed(self, event: EventEnvelope, message: Message, attempts: int) -> HandlerFailed:
        topic, partition = message.partition
        return HandlerFailed(
            group=self._group,
            topic=topic,
            partition=partition,
            offset=message.offset,
            event_id=event.event_id,
            attempts=attempts,
        )
