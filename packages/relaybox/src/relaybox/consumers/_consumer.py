"""The consumer, which reads the messages of its partitions and passes the events to handlers."""

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import Iterable, Sequence
from time import monotonic, time
from typing import Final, Literal, assert_never

import structlog

from relaybox.consumers._coordinator_clock import CoordinatorClock
from relaybox.consumers._daemon_executor import DaemonExecutor
from relaybox.consumers._dead_letter_topic import dead_letter_topic
from relaybox.consumers._dead_letters import DeadLetters
from relaybox.consumers._errors import KafkaClientHung
from relaybox.consumers._group_member import Assigned, GroupMember, PollRequest, PollResult, Revoked
from relaybox.consumers._key_queue import PartitionQueue
from relaybox.consumers._message import Partition
from relaybox.consumers._policy import DATABASE_ERRORS, database_pause_s, database_reason
from relaybox.consumers._processor import Processor
from relaybox.consumers._scheduler import Scheduler
from relaybox.consumers._statistics import ConsumerSignal, ConsumerStatistics, LetterCounts, ProgressClock
from relaybox.consumers._subscription import Subscription, check_reading, one_group
from relaybox.db import Database
from relaybox.periodic import PeriodicJob, wait_at_most
from relaybox.settings import DeadLetterSettings, KafkaSettings
from relaybox.signals import OnSignal, SignalEmitter

__all__ = ("Consumer",)

_log: Final = structlog.stdlib.get_logger(__name__)
#: How long a poll waits for messages while no message is being processed.
_IDLE_S: Final = 0.5
#: How long a poll waits while messages are being processed: shorter, to resume a paused partition soon.
_BUSY_S: Final = 0.1
#: How often the consumer reads requests of operators: dead letters to replay, messages to park.
_REQUESTS_S: Final = 1.0
#: How often the consumer counts the unresolved dead letters of its group, for metrics.
_LETTERS_S: Final = 10.0
#: Each of these signals means that a message or the replay of a dead letter is finished.
_FINISHED: Final = (
    ConsumerSignal.COMMITTED,
    ConsumerSignal.ALREADY_DONE,
    ConsumerSignal.TYPE_NOT_SUBSCRIBED,
    ConsumerSignal.PARKED,
    ConsumerSignal.REPLAYED,
    ConsumerSignal.REPLAY_FAILED,
)
#: How long running transactions may take after the consumer began to stop; then they are rolled back.
_STOP_GRACE_S: Final = 5.0
#: A longer poll is considered hung. The limit is high, because a poll in which partitions are revoked waits
#: until their offsets are committed.
_POLL_S_MAX: Final = 90.0
#: The consumer ends if more than this many replaced Kafka clients could not be closed yet.
_HUNG_CLIENTS_MAX: Final = 3
#: How long leaving the group may take. A consumer that does not manage to leave loses its partitions when its
#: session times out.
_CLOSE_S: Final = 3.0


class Consumer:
    """Pass the events of some topics to the handlers of one group.

    Guarantees (G40): the effect of an event and the record that the group has processed the event commit
    together; the offset is committed after that. Redelivery (after a crash, a rebalance, a reset of offsets)
    has no second effect. Events of one key are processed in order, events of different keys in parallel
    (G42). If a handler fails on every attempt, the message is parked as a dead letter, and the later messages
    of its key are parked too (G41), unless the subscription sets ``on_failure`` or ``order``. Slow handlers
    or a slow database do not end the membership in the group. While Kafka is unavailable, the consumer waits.
    The consumer joins the group when the database responds, and keeps its partitions if the database fails.
    """

    def __init__(
        self,
        database: Database,
        settings: KafkaSettings,
        subscriptions: Iterable[Subscription],
        *,
        topics: Sequence[str] = ("domain-events",),
        concurrency: int = 8,
        start: Literal["earliest", "latest"] = "earliest",
        message_bytes_max: int = 1_048_576,
        dead_letters: DeadLetterSettings | None = None,
        on_signal: OnSignal[ConsumerSignal] | None = None,
    ) -> None:
        """Check the subscriptions; nothing is read before :meth:`run`.

        Args:
            database: Has ``consumed_events`` and the tables that the handlers write.
            settings: How to reach Kafka.
            subscriptions: Handlers of one group, each event type at most once.
            topics: The topics to read.
            concurrency: How many transactions may run at once; each uses one connection of *database*.
            start: Where a group without committed offsets begins: before the first message of each
                partition, or after its last.
            message_bytes_max: A larger message (key, value and headers) fails without a call of its handler.
            dead_letters: The topic to which dead letters are published; None reads ``DEAD_LETTER_TOPIC``.
            on_signal: Receives each step of the consumer, for tests.

        Raises:
            SubscriptionInvalid: No subscription, several groups, two handlers of one event type, no topic,
                a limit below 1, or the topic of dead letters is one of *topics*.
            TopicUndeclared: The topic of dead letters is not in ``OUTBOX_TOPICS``.
            SettingsError: A setting in the environment is malformed.
        """
        check_reading(topics, concurrency, message_bytes_max)
        declared = tuple(subscriptions)
        self.group = one_group(declared)
        self._database, self._settings = database, settings
        self._topics, self._start = tuple(topics), start
        self._signals = signals = SignalEmitter(on_signal)
        letters = DeadLetters(self.group, dead_letter_topic(dead_letters, self._topics))
        self._processor = Processor(
            database, declared, letters, signals, concurrency=concurrency, message_bytes_max=message_bytes_max
        )
        self._scheduler = Scheduler(
            self._processor, group=self.group, concurrency=concurrency, signals=signals, on_stop=self._fail
        )
        self._requests = PeriodicJob(self._find_requests, name="find requests", interval_s=_REQUESTS_S)
        self._counting = PeriodicJob(self._count_letters, name="count dead letters", interval_s=_LETTERS_S)
        self._letters = LetterCounts()
        self._progress = ProgressClock(monotonic())
        self._partitions: dict[Partition, PartitionQueue] = {}
        self._failure: BaseException | None = None
        self._paused: set[Partition] = set()
        self._opened: set[Partition] = set()  # newly assigned; may still be paused from an earlier assignment
        self._committed: dict[Partition, int] = {}
        self._skipped, self._kafka_unavailable = 0, False
        self._coordinator = CoordinatorClock(monotonic())
        self._client: tuple[DaemonExecutor, GroupMember] | None = None  # None: not a member of the group
        self._hung: list[DaemonExecutor] = []
        self._stopping = asyncio.Event()

    def __repr__(self) -> str:
        held, state = len(self._partitions), "stopping" if self._stopping.is_set() else "running"
        return f"<Consumer {self.group!r} [{held} partitions | {self._scheduler.waiting} waiting | {state}]>"

    def statistics(self) -> ConsumerStatistics:
        """Return what was done since the start, and what is being processed now."""
        counts = self._signals.counts
        return ConsumerStatistics(
            group=self.group,
            partitions=len(self._partitions),
            lags=tuple(queue.measure_lag(time()) for queue in self._partitions.values()),
            buffered=self._unfinished,
            waiting=self._scheduler.waiting,
            running=self._scheduler.running,
            handled=counts[ConsumerSignal.COMMITTED],
            already_done=counts[ConsumerSignal.ALREADY_DONE],
            skipped=self._skipped + counts[ConsumerSignal.TYPE_NOT_SUBSCRIBED],
            retries=counts[ConsumerSignal.RETRYING],
            parked=counts[ConsumerSignal.PARKED],
            replayed=counts[ConsumerSignal.REPLAYED],
            database_waits=counts[ConsumerSignal.WAITING_FOR_DATABASE],
            kafka_unavailable=self._kafka_unavailable,
            letters=self._letters,
            handler_counts=tuple(self._processor.durations.counts),
            handler_sum_s=self._processor.durations.sum_s,
            stalled_s=self._progress.stalled_s(monotonic()),
            coordinator_lost_s=self._coordinator.lost_s,
            clients_replaced=counts[ConsumerSignal.KAFKA_CLIENT_REPLACED],
        )

    @property
    def _unfinished(self) -> int:
        return sum(queue.messages for queue in self._partitions.values())

    def stop(self) -> None:
        """Let :meth:`run` finish events for at most 5 s, commit offsets, leave the group and return."""
        self._stopping.set()
        for job in (self._requests, self._counting):
            job.stop()

    async def run(self) -> None:
        """Consume until :meth:`stop`, and return in under 10 s after that; a consumer can run only once.

        Raises:
            HandlerFailed: A handler with ``on_failure="stop"`` failed on every attempt.
            HandlerEndedProcess: A handler with ``on_failure="stop"`` ended several processes.
            EnvelopeInvalid: A message is not an event, and every subscription has ``on_failure="stop"``.
            MessageTooLarge, EventVersionUnknown, EventUpcastFailed: A handler with ``on_failure="stop"``
                cannot be called with a message.
            KafkaRefused: Kafka rejects this consumer, and waiting cannot change that.
            KafkaClientHung: Over three Kafka clients found no coordinator or hung, and cannot be closed.
        """
        await self._reach_database()
        if self._stopping.is_set():
            return
        executor, member = await self._join()
        jobs = [asyncio.create_task(job.run()) for job in (self._requests, self._counting)]
        try:
            while not await self._consume(executor, member):
                await self._abandon(member)
                executor, member = await self._join()
        finally:
            self.stop()
            for job in jobs:
                job.cancel()
            await self._scheduler.close(_STOP_GRACE_S)
            await asyncio.gather(
                self._processor.crash_watch.close(tuple(self._partitions), stops=True),
                self._leave(),
            )
        if self._failure is not None:
            raise self._failure

    async def _reach_database(self) -> None:
        """Wait until the database responds, before the consumer joins the group; return after :meth:`stop`.

        A member that cannot use its database would occupy partitions that other members could process.
        """
        failures = 0
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(_STOP_GRACE_S):
                    await self._count_letters()
                    await self._processor.park_requests.refresh(self._database, {})
            except (TimeoutError, *DATABASE_ERRORS) as error:
                failures += 1
                _log.warning(
                    "consumer waits for the database before it joins the group",
                    group=self.group,
                    reason=database_reason(error),
                )
                self._signals.emit(ConsumerSignal.WAITING_FOR_DATABASE)
            else:
                break
            await wait_at_most(self._stopping, database_pause_s(failures))

    def _fail(self, failure: BaseException) -> None:
        self._failure = self._failure or failure
        self.stop()

    async def _join(self) -> tuple[DaemonExecutor, GroupMember]:
        executor = DaemonExecutor(f"kafka-{self.group}")
        self._client = executor, await executor.submit(self._open)
        return self._client

    async def _abandon(self, member: GroupMember) -> None:
        """Close a Kafka client that must be replaced, and stop work on its partitions."""
        if member.outdated:
            _log.info("certificate files renewed; Kafka client replaced", group=self.group)
        else:
            cause = "no coordinator found" if self._coordinator.is_over else "a poll did not end within 90 s"
            names = {"group": self.group, "cause": cause, "lost_s": round(self._coordinator.lost_s)}
            _log.error("Kafka client abandoned; check the brokers", **names)
        lost = tuple(self._partitions)
        self._close_partitions(lost)
        await self._processor.crash_watch.close(lost)
        await self._leave()
        self._hung = [each for each in self._hung if each.is_alive]
        if len(self._hung) > _HUNG_CLIENTS_MAX:
            raise KafkaClientHung(group=self.group, clients=len(self._hung))
        self._coordinator.replaced()
        self._signals.emit(ConsumerSignal.KAFKA_CLIENT_REPLACED)

    def _open(self) -> GroupMember:
        return GroupMember(
            self._settings,
            group=self.group,
            topics=self._topics,
            event_types=self._processor.event_types,
            start=self._start,
            position_of=self._position_of,
        )

    def _position_of(self, partition: Partition) -> int | None:
        queue = self._partitions.get(partition)
        return None if queue is None else queue.offsets.position

    async def _consume(self, executor: DaemonExecutor, member: GroupMember) -> bool:
        """Read messages until :meth:`stop`; return False if the Kafka client must be replaced instead."""
        stop_requested = asyncio.create_task(self._stopping.wait())
        try:
            while not (self._stopping.is_set() or self._coordinator.is_over or member.outdated):
                wait_s = _BUSY_S if self._scheduler.running else _IDLE_S
                poll = executor.submit(member.poll, self._request(), wait_s)
                await asyncio.wait({poll, stop_requested}, timeout=_POLL_S_MAX, return_when=FIRST_COMPLETED)
                if not poll.done():
                    poll.cancel()
                    return self._stopping.is_set()
                await self._apply(poll.result())
                self._observe(member, poll.result())
        finally:
            stop_requested.cancel()
        return self._stopping.is_set()

    def _observe(self, member: GroupMember, result: PollResult) -> None:
        if member.unavailable and not self._kafka_unavailable:
            self._signals.emit(ConsumerSignal.KAFKA_UNAVAILABLE)
        self._kafka_unavailable = member.unavailable
        self._coordinator.observe(monotonic(), coordinated=result.coordinated)
        has_work = self._unfinished > 0 or any(queue.lag for queue in self._partitions.values())
        self._progress.observe(
            monotonic(),
            finished=self._skipped + sum(self._signals.counts[signal] for signal in _FINISHED),
            can_work=has_work and not self._scheduler.database_fails and not self._kafka_unavailable,
        )

    async def _count_letters(self) -> None:
        if not self._scheduler.database_fails:
            self._letters = await self._processor.count_letters()

    async def _find_requests(self) -> None:
        """Schedule the dead letters whose replay was requested; read which messages have to be parked."""
        if not self._partitions or self._scheduler.waits_for_database:
            return
        positions = {at: queue.offsets.position for at, queue in self._partitions.items()}
        finished = {at: position for at, position in positions.items() if position is not None}
        await self._processor.park_requests.refresh(self._database, finished)
        starts = {
            at: queue.replays_start for at, queue in self._partitions.items() if queue.has_room_for_replays
        }
        for found in await self._processor.replayer.requested(starts):
            if (partition := self._partitions.get(found.partition)) is not None:
                self._processor.crash_watch.expect(found)
                for queue in partition.add_replays(found):
                    self._scheduler.offer(queue)
        self._scheduler.dispatch()

    async def _leave(self) -> None:
        """Commit the offsets of this consumer's partitions, and leave the group if this is a member of it.

        If that takes over 3 s, the consumer stops waiting for the thread that calls Kafka.
        """
        if self._client is None:
            return
        (executor, member), self._client = self._client, None
        closing = executor.submit(member.close)
        executor.shutdown()
        done, _ = await asyncio.wait({closing}, timeout=_CLOSE_S)
        self._partitions.clear()
        if done:
            closing.result()
        else:
            closing.cancel()
            self._hung.append(executor)
            _log.warning("group not left; partitions are reassigned after session timeout", group=self.group)

    def _request(self) -> PollRequest:
        partitions = self._partitions
        pause = {at for at, queue in partitions.items() if at not in self._paused and queue.is_full}
        resume = {at for at in self._paused if partitions[at].has_room}
        self._paused = (self._paused | pause) - resume
        if pause:
            self._signals.emit(ConsumerSignal.PAUSED)
        if resume:
            self._signals.emit(ConsumerSignal.RESUMED)
        positions = {
            at: position
            for at, queue in partitions.items()
            if (position := queue.offsets.position) is not None and position != self._committed.get(at)
        }
        resume |= self._opened
        self._opened = set()
        return PollRequest(positions=positions, pause=tuple(pause), resume=tuple(resume))

    async def _apply(self, result: PollResult) -> None:
        for change in result.changes:
            match change:
                case Assigned():
                    await self._processor.crash_watch.open(change.partitions)
                    self._open_partitions(change.partitions)
                case Revoked():
                    self._close_partitions(change.partitions)
                    await self._processor.crash_watch.close(change.partitions)
                case _:
                    assert_never(change)
        for message in result.messages:
            self._scheduler.offer(self._partitions[message.partition].add(message))
        for at, offset in result.read_to.items():
            self._partitions[at].offsets.read_to(offset)
        for at, end in result.ends.items():
            self._partitions[at].end = end
        self._processor.crash_watch.end(at for at, queue in self._partitions.items() if queue.is_finished)
        self._scheduler.dispatch()
        self._skipped += result.skipped
        if result.committed:
            self._committed.update(result.committed)
            self._signals.emit(ConsumerSignal.OFFSETS_COMMITTED)

    def _open_partitions(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self._partitions[partition] = PartitionQueue(partition)
            self._opened.add(partition)
        _log.info("partitions assigned", group=self.group, held=len(self._partitions))
        self._signals.emit(ConsumerSignal.ASSIGNED)

    def _close_partitions(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self._partitions.pop(partition).closed = True
            self._paused.discard(partition)
            self._opened.discard(partition)
            self._committed.pop(partition, None)
        _log.info("partitions revoked", group=self.group, held=len(self._partitions))
        self._signals.emit(ConsumerSignal.REVOKED)
