"""A process's membership in a consumer group."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, assert_never

import structlog

from relaybox.consumers._errors import SubscriptionInvalid
from relaybox.consumers._handling import ConsumerMoment, Handling
from relaybox.consumers._lane import Lane
from relaybox.consumers._link import Assigned, Link, Orders, Reading, Revoked
from relaybox.consumers._message import Partition
from relaybox.consumers._statistics import ConsumerStatistics
from relaybox.consumers._subscription import Subscription
from relaybox.consumers._thread import CallingThread
from relaybox.db import Database
from relaybox.settings import KafkaSettings

__all__ = ("Consumer",)

_log: Final = structlog.stdlib.get_logger(__name__)
#: How long a read waits for messages while nothing is in hand.
_IDLE_S: Final = 0.5
#: The same while messages are in hand: a partition that was paused wants to be read on.
_BUSY_S: Final = 0.1
#: A partition with this many unfinished messages is read no further until half of them are done.
_LANE_MESSAGES_MAX: Final = 500
#: How long events in hand may take once the consumer stops; then their transactions are rolled back.
_STOP_GRACE_S: Final = 5.0
#: How long leaving may take; a broker that does not answer finds out by the session's time-out.
_CLOSE_S: Final = 3.0


class Consumer:
    """Hands the events of some topics to the handlers of one group.

    Promises (G40): an event's effect and the record that the group has seen it commit together;
    its offset is committed after that. Redelivery – after a crash, a rebalance, a reset of the
    group's offsets – has no second effect. Events of one partition are handled one after the other,
    in order; partitions go on side by side. Membership is kept while handlers or PostgreSQL take
    their time. Kafka away, at the start or later, is waited for.
    """

    def __init__(
        self,
        database: Database,
        settings: KafkaSettings,
        subscriptions: Iterable[Subscription],
        *,
        topics: Sequence[str] = ("domain-events",),
        concurrency: int = 4,
        on_moment: Callable[[ConsumerMoment], None] | None = None,
    ) -> None:
        declared = tuple(subscriptions)
        self.group = _one_group(declared)
        self._settings = settings
        self._topics = tuple(topics)
        self._on_moment = on_moment
        self._counts: Counter[ConsumerMoment] = Counter()
        self._handling = Handling(
            database, declared, group=self.group, concurrency=concurrency, announce=self._announce
        )
        self._lanes: dict[Partition, Lane] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._paused: set[Partition] = set()
        self._committed: dict[Partition, int] = {}
        self._skipped = 0
        self._kafka_away = False
        self._stopping = asyncio.Event()

    def __repr__(self) -> str:
        held, state = len(self._lanes), "stopping" if self._stopping.is_set() else "running"
        waiting = sum(lane.waiting for lane in self._lanes.values())
        return f"<Consumer {self.group!r} [{held} partitions | {waiting} waiting | {state}]>"

    def statistics(self) -> ConsumerStatistics:
        """What was done since the start, and what is in hand now."""
        lanes = self._lanes.values()
        return ConsumerStatistics(
            partitions=len(lanes),
            buffered=sum(len(lane) for lane in lanes),
            waiting=sum(lane.waiting for lane in lanes),
            handled=self._counts[ConsumerMoment.COMMITTED],
            already_done=self._counts[ConsumerMoment.ALREADY_DONE],
            skipped=self._skipped + self._counts[ConsumerMoment.OTHER_TYPE],
            retries=self._counts[ConsumerMoment.RETRYING],
            database_waits=self._counts[ConsumerMoment.WAITING_FOR_DATABASE],
            kafka_away=self._kafka_away,
        )

    def stop(self) -> None:
        """Let :meth:`run` finish the events in hand, commit their offsets, leave the group and return."""
        self._stopping.set()
        for lane in self._lanes.values():
            lane.close()

    async def run(self) -> None:
        """Consume until :meth:`stop`, which takes effect in under 10 s. A consumer runs once.

        Raises:
            HandlerFailed: a handler failed on every attempt.
            EnvelopeInvalid: a message is no event.
            KafkaRefused: Kafka refuses this consumer for good.
        """
        thread = CallingThread(f"kafka-{self.group}")
        link = await thread.call(self._open)
        try:
            await self._consume(thread, link)
        finally:
            await self._finish_in_hand()
            await self._leave(thread, link)
        if self._failure is not None:
            raise self._failure

    def _open(self) -> Link:
        return Link(
            self._settings,
            group=self.group,
            topics=self._topics,
            event_types=self._handling.event_types,
            position_of=self._position_of,
        )

    def _position_of(self, partition: Partition) -> int | None:
        lane = self._lanes.get(partition)
        return None if lane is None else lane.position

    async def _consume(self, thread: CallingThread, link: Link) -> None:
        told_to_stop = asyncio.create_task(self._stopping.wait())
        while not self._stopping.is_set():
            wait_s = _BUSY_S if any(lane.busy for lane in self._lanes.values()) else _IDLE_S
            reading = thread.call(link.read, self._orders(), wait_s)
            await asyncio.wait({reading, told_to_stop}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reading.cancel()
                break
            self._take_in(reading.result())
            if link.away and not self._kafka_away:
                self._announce(ConsumerMoment.KAFKA_AWAY)
            self._kafka_away = link.away
        told_to_stop.cancel()

    async def _finish_in_hand(self) -> None:
        self.stop()
        if self._work:
            await asyncio.wait(self._work, timeout=_STOP_GRACE_S)
        late = list(self._work)
        for work in late:
            work.cancel()
        if late:
            _log.warning("events in hand took too long; they come again", group=self.group, events=len(late))
            await asyncio.wait(late, timeout=1.0)

    async def _leave(self, thread: CallingThread, link: Link) -> None:
        """Offsets are committed by the last revocation, which closing brings about."""
        closing = thread.call(link.close)
        thread.end()
        done, _ = await asyncio.wait({closing}, timeout=_CLOSE_S)
        if not done:
            _log.warning("Kafka does not answer; the group was left without a word", group=self.group)
            closing.cancel()
        else:
            closing.result()
        self._lanes.clear()

    def _orders(self) -> Orders:
        full = {at for at, lane in self._lanes.items() if len(lane) >= _LANE_MESSAGES_MAX}
        pause = full - self._paused
        resume = {at for at in self._paused if len(self._lanes[at]) <= _LANE_MESSAGES_MAX // 2}
        self._paused = (self._paused | pause) - resume
        if pause:
            self._announce(ConsumerMoment.PAUSED)
        if resume:
            self._announce(ConsumerMoment.RESUMED)
        positions = {
            at: lane.position
            for at, lane in self._lanes.items()
            if lane.position is not None and lane.position != self._committed.get(at)
        }
        return Orders(positions=positions, pause=tuple(pause), resume=tuple(resume))

    def _take_in(self, reading: Reading) -> None:
        for change in reading.changes:
            match change:
                case Assigned():
                    self._open_lanes(change.partitions)
                case Revoked():
                    self._close_lanes(change.partitions)
                case _:
                    assert_never(change)
        for message in reading.messages:
            self._lanes[message.partition].put(message)
        for at, offset in reading.read_to.items():
            self._lanes[at].read_to(offset)
        self._skipped += reading.skipped
        if reading.committed:
            self._committed.update(reading.committed)
            self._announce(ConsumerMoment.OFFSETS_COMMITTED)

    def _open_lanes(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            lane = self._lanes[partition] = Lane(partition)
            work = asyncio.create_task(lane.run(self._handling.handle), name=f"lane {partition}")
            work.add_done_callback(self._lane_ended)
            self._work.add(work)
        _log.info("partitions assigned", group=self.group, held=len(self._lanes))
        self._announce(ConsumerMoment.ASSIGNED)

    def _close_lanes(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self._lanes.pop(partition).close()
            self._paused.discard(partition)
            self._committed.pop(partition, None)
        _log.info("partitions revoked", group=self.group, held=len(self._lanes))
        self._announce(ConsumerMoment.REVOKED)

    def _lane_ended(self, work: asyncio.Task[None]) -> None:
        self._work.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            self._failure = self._failure or error
            self.stop()

    def _announce(self, moment: ConsumerMoment) -> None:
        self._counts[moment] += 1
        if self._on_moment is not None:
            self._on_moment(moment)


def _one_group(subscriptions: Sequence[Subscription]) -> str:
    """Return the group that all *subscriptions* are of.

    Raises:
        SubscriptionInvalid: there are none, or several groups, or two handlers of one event type.
    """
    groups = sorted({one.group for one in subscriptions})
    if len(groups) != 1:
        raise SubscriptionInvalid(
            f"a consumer has subscriptions of one group, not of {groups or 'none'}; make one for each"
        )
    handlers = Counter(name for one in subscriptions for name in one.event_types)
    twice = ", ".join(sorted(name for name, times in handlers.items() if times > 1))
    if twice:
        raise SubscriptionInvalid(
            f"{twice} has two handlers in group {groups[0]!r}, but one event is one transaction; "
            "join them in one function, or give the second a group of its own"
        )
    return groups[0]
