"""The consumer: reads the messages of its partitions and passes them to the handlers of its group."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, assert_never

import structlog

from relaybox.consumers._daemon_executor import DaemonExecutor
from relaybox.consumers._errors import SubscriptionInvalid
from relaybox.consumers._event_processor import ConsumerSignal, EventProcessor
from relaybox.consumers._group_member import Assigned, GroupMember, PollRequest, PollResult, Revoked
from relaybox.consumers._message import Partition
from relaybox.consumers._partition_queue import PartitionQueue
from relaybox.consumers._statistics import ConsumerStatistics
from relaybox.consumers._subscription import Subscription
from relaybox.db import Database
from relaybox.settings import KafkaSettings
from relaybox.signals import OnSignal, SignalEmitter

__all__ = ("Consumer",)

_log: Final = structlog.stdlib.get_logger(__name__)
#: How long a poll waits for messages while no message is being processed.
_IDLE_S: Final = 0.5
#: The same while messages are being processed: a paused partition has to be resumed soon.
_BUSY_S: Final = 0.1
#: A partition with this many unfinished messages is paused until half of them are done.
_QUEUE_MESSAGES_MAX: Final = 500
#: How long events may take once the consumer stops; then their transactions are rolled back.
_STOP_GRACE_S: Final = 5.0
#: How long leaving the group may take; if no broker responds, the session times out there.
_CLOSE_S: Final = 3.0


class Consumer:
    """Pass the events of some topics to the handlers of one group.

    Guarantees (G40): an event's effect and the record that the group has processed it commit together;
    its offset is committed after that. Redelivery – after a crash, a rebalance, a reset of the
    group's offsets – has no second effect. The events of one partition are processed one after the other,
    in order; partitions are processed concurrently. Slow handlers or a slow database do not end the
    membership in the group. If Kafka is unavailable, at the start or later, the consumer waits.
    """

    def __init__(
        self,
        database: Database,
        settings: KafkaSettings,
        subscriptions: Iterable[Subscription],
        *,
        topics: Sequence[str] = ("domain-events",),
        concurrency: int = 4,
        on_signal: OnSignal[ConsumerSignal] | None = None,
    ) -> None:
        declared = tuple(subscriptions)
        self.group = _one_group(declared)
        self._settings = settings
        self._topics = tuple(topics)
        self._signals = SignalEmitter(on_signal)
        self._processor = EventProcessor(
            database, declared, group=self.group, concurrency=concurrency, signals=self._signals
        )
        self._queues: dict[Partition, PartitionQueue] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._paused: set[Partition] = set()
        self._committed: dict[Partition, int] = {}
        self._skipped = 0
        self._kafka_unavailable = False
        self._stopping = asyncio.Event()

    def __repr__(self) -> str:
        held, state = len(self._queues), "stopping" if self._stopping.is_set() else "running"
        waiting = sum(queue.waiting for queue in self._queues.values())
        return f"<Consumer {self.group!r} [{held} partitions | {waiting} waiting | {state}]>"

    def statistics(self) -> ConsumerStatistics:
        """Return what was done since the start, and what is being processed now."""
        queues, counts = self._queues.values(), self._signals.counts
        return ConsumerStatistics(
            partitions=len(queues),
            buffered=sum(len(queue) for queue in queues),
            waiting=sum(queue.waiting for queue in queues),
            handled=counts[ConsumerSignal.COMMITTED],
            already_done=counts[ConsumerSignal.ALREADY_DONE],
            skipped=self._skipped + counts[ConsumerSignal.TYPE_NOT_SUBSCRIBED],
            retries=counts[ConsumerSignal.RETRYING],
            database_waits=counts[ConsumerSignal.WAITING_FOR_DATABASE],
            kafka_unavailable=self._kafka_unavailable,
        )

    def stop(self) -> None:
        """Let :meth:`run` finish the current events, commit their offsets, leave the group and return."""
        self._stopping.set()
        for queue in self._queues.values():
            queue.close()

    async def run(self) -> None:
        """Consume until :meth:`stop`, which takes effect in under 10 s; call it once per consumer.

        Raises:
            HandlerFailed: A handler failed on every attempt.
            EnvelopeInvalid: A message is not an event.
            KafkaRefused: Kafka rejects this consumer, and waiting cannot change that.
        """
        executor = DaemonExecutor(f"kafka-{self.group}")
        member = await executor.submit(self._open)
        try:
            await self._consume(executor, member)
        finally:
            await self._finish_current()
            await self._leave(executor, member)
        if self._failure is not None:
            raise self._failure

    def _open(self) -> GroupMember:
        return GroupMember(
            self._settings,
            group=self.group,
            topics=self._topics,
            event_types=self._processor.event_types,
            position_of=self._position_of,
        )

    def _position_of(self, partition: Partition) -> int | None:
        queue = self._queues.get(partition)
        return None if queue is None else queue.position

    async def _consume(self, executor: DaemonExecutor, member: GroupMember) -> None:
        stop_requested = asyncio.create_task(self._stopping.wait())
        while not self._stopping.is_set():
            wait_s = _BUSY_S if any(queue.busy for queue in self._queues.values()) else _IDLE_S
            result = executor.submit(member.poll, self._request(), wait_s)
            await asyncio.wait({result, stop_requested}, return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                result.cancel()
                break
            self._apply(result.result())
            if member.unavailable and not self._kafka_unavailable:
                self._signals.emit(ConsumerSignal.KAFKA_UNAVAILABLE)
            self._kafka_unavailable = member.unavailable
        stop_requested.cancel()

    async def _finish_current(self) -> None:
        self.stop()
        if self._work:
            await asyncio.wait(self._work, timeout=_STOP_GRACE_S)
        late = list(self._work)
        for work in late:
            work.cancel()
        if late:
            _log.warning("events cancelled at stop; redelivered later", group=self.group, events=len(late))
            await asyncio.wait(late, timeout=1.0)

    async def _leave(self, executor: DaemonExecutor, member: GroupMember) -> None:
        """Close the member; that revokes its partitions, which commits their offsets."""
        closing = executor.submit(member.close)
        executor.shutdown()
        done, _ = await asyncio.wait({closing}, timeout=_CLOSE_S)
        if not done:
            _log.warning("Kafka does not respond; group left by session timeout", group=self.group)
            closing.cancel()
        else:
            closing.result()
        self._queues.clear()

    def _request(self) -> PollRequest:
        full = {at for at, queue in self._queues.items() if len(queue) >= _QUEUE_MESSAGES_MAX}
        pause = full - self._paused
        resume = {at for at in self._paused if len(self._queues[at]) <= _QUEUE_MESSAGES_MAX // 2}
        self._paused = (self._paused | pause) - resume
        if pause:
            self._signals.emit(ConsumerSignal.PAUSED)
        if resume:
            self._signals.emit(ConsumerSignal.RESUMED)
        positions = {
            at: queue.position
            for at, queue in self._queues.items()
            if queue.position is not None and queue.position != self._committed.get(at)
        }
        return PollRequest(positions=positions, pause=tuple(pause), resume=tuple(resume))

    def _apply(self, result: PollResult) -> None:
        for change in result.changes:
            match change:
                case Assigned():
                    self._open_queues(change.partitions)
                case Revoked():
                    self._close_queues(change.partitions)
                case _:
                    assert_never(change)
        for message in result.messages:
            self._queues[message.partition].put(message)
        for at, offset in result.read_to.items():
            self._queues[at].read_to(offset)
        self._skipped += result.skipped
        if result.committed:
            self._committed.update(result.committed)
            self._signals.emit(ConsumerSignal.OFFSETS_COMMITTED)

    def _open_queues(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            queue = self._queues[partition] = PartitionQueue(partition)
            work = asyncio.create_task(queue.run(self._processor.process), name=f"queue {partition}")
            work.add_done_callback(self._queue_ended)
            self._work.add(work)
        _log.info("partitions assigned", group=self.group, held=len(self._queues))
        self._signals.emit(ConsumerSignal.ASSIGNED)

    def _close_queues(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self._queues.pop(partition).close()
            self._paused.discard(partition)
            self._committed.pop(partition, None)
        _log.info("partitions revoked", group=self.group, held=len(self._queues))
        self._signals.emit(ConsumerSignal.REVOKED)

    def _queue_ended(self, work: asyncio.Task[None]) -> None:
        self._work.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            self._failure = self._failure or error
            self.stop()


def _one_group(subscriptions: Sequence[Subscription]) -> str:
    """Return the one group of all *subscriptions*.

    Raises:
        SubscriptionInvalid: There is no subscription, there are several groups, or one event type has two
            handlers.
    """
    groups = sorted({subscription.group for subscription in subscriptions})
    if len(groups) != 1:
        raise SubscriptionInvalid(
            f"a consumer needs subscriptions of exactly one group, not of {groups or 'none'}; "
            "create one consumer per group"
        )
    handlers = Counter(name for subscription in subscriptions for name in subscription.event_types)
    duplicates = ", ".join(sorted(name for name, times in handlers.items() if times > 1))
    if duplicates:
        raise SubscriptionInvalid(
            f"{duplicates} has two handlers in group {groups[0]!r}, but an event has one transaction; "
            "combine them in one function, or give the second handler another group"
        )
    return groups[0]
