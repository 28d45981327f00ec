"""Run the work of all keys: the work of one key in order, several keys at once."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, assert_never

import structlog

from relaybox.consumers._errors import HandlerAborted, HandlerEndedProcess, KeyBlocked, ParkedByOperator
from relaybox.consumers._key_queue import Item, KeyQueue, KeyState, Parking, ReadyKeys, Replay
from relaybox.consumers._message import Message
from relaybox.consumers._policy import (
    DATABASE_DOWN,
    DATABASE_ERRORS,
    GiveUp,
    Retry,
    WaitForDatabase,
    database_pause_s,
    decide_after_failure,
    is_database_failure,
)
from relaybox.consumers._processor import Delivery, Outcome, Processor
from relaybox.consumers._replayer import ReplayFailed
from relaybox.consumers._statistics import ConsumerSignal
from relaybox.db import DatabaseUnavailable
from relaybox.signals import SignalEmitter
from relaybox.telemetry import traceback_of

__all__ = ("Scheduler",)

_log: Final = structlog.stdlib.get_logger(__name__)
#: After this many failed attempts to park a message (about 26 s), it is parked even if ``on_parked`` fails.
_PARKING_ATTEMPTS_MAX: Final = 10


class Scheduler:
    """Run at most *concurrency* transactions at once; two of them never have work of the same key.

    A key whose handler failed waits for its next attempt and meanwhile occupies no transaction. While the
    database is unavailable no transaction begins, except one attempt after each pause.
    """

    def __init__(
        self,
        processor: Processor,
        *,
        group: str,
        concurrency: int,
        signals: SignalEmitter[ConsumerSignal],
        on_stop: Callable[[BaseException], None],
    ) -> None:
        """*on_stop* is called with the error that must end the consumer, see ``on_failure="stop"``."""
        self._processor = processor
        self._group = group
        self._concurrency = concurrency
        self._signals = signals
        self._on_stop = on_stop
        self._ready = ReadyKeys(concurrency)
        self._running: set[asyncio.Task[None]] = set()
        #: The running tasks that replay a letter.
        self._replaying: set[asyncio.Task[None]] = set()
        self._paused = 0
        self._database_failures = 0
        self._commits = 0  # messages whose handlers have committed
        self._database_pause: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def running(self) -> int:
        """Number of transactions that are running now."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Number of keys that wait for their next attempt or for the database."""
        return self._paused + (len(self._ready) if self.waits_for_database else 0)

    @property
    def waits_for_database(self) -> bool:
        """Whether no transaction begins because the database is unavailable."""
        return self._database_pause is not None

    @property
    def database_fails(self) -> bool:
        """Whether the last attempt failed because the database was unavailable."""
        return self._database_failures > 0

    def offer(self, queue: KeyQueue) -> None:
        """Make *queue*, which has new work, ready if it is idle; :meth:`dispatch` begins the work."""
        if queue.state is KeyState.IDLE:
            self._make_ready(queue)

    def dispatch(self) -> None:
        """Begin as much ready work as the limit of concurrent transactions and the database allow."""
        # One transaction at a time: while the database fails, and while the crash watch looks for a message.
        alone = self._database_failures or self._processor.crash_watch.is_watching
        limit = 1 if alone else self._concurrency
        while not self._closed and self._database_pause is None and len(self._running) < limit:
            queues = self._take()
            if not queues:
                return
            task = asyncio.create_task(self._run(queues))
            self._running.add(task)
            if isinstance(queues[0].first.work, Replay):
                self._replaying.add(task)
            task.add_done_callback(self._ended)

    async def close(self, grace_s: float) -> None:
        """Begin no further work; wait *grace_s* seconds for running transactions, then roll them back."""
        self._closed = True
        self._processor.close()
        if self._database_pause is not None:
            self._database_pause.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=grace_s)
        late = list(self._running)
        for task in late:
            task.cancel()
        if late:
            _log.warning(
                "transactions rolled back at stop; their events are redelivered",
                group=self._group,
                transactions=len(late),
            )
            await asyncio.wait(late, timeout=1.0)

    def _take(self) -> list[KeyQueue]:
        """Return the queues whose first items share the next transaction; empty if no work may begin."""
        while ready := self._ready.next_keys(len(self._replaying)):
            if taken := self._take_from(ready):
                return taken
        return []

    def _take_from(self, ready: deque[KeyQueue]) -> list[KeyQueue]:
        """Remove queues from the front of *ready*, and return those that share the next transaction.

        Queues of revoked partitions are removed but not returned. If *ready* has only those, return no queue.
        """
        taken: list[KeyQueue] = []
        limit = 1
        while ready and len(taken) < limit:
            queue = ready[0]
            if not queue.partition.closed:
                shared = self._shared_events_max(queue)
                if taken and shared == 1:
                    break
                limit = shared if not taken else min(limit, shared)
                if len(taken) >= limit:
                    break
                queue.state = KeyState.RUNNING
                taken.append(queue)
            ready.popleft()
        return taken

    def _shared_events_max(self, queue: KeyQueue) -> int:
        """Return how many events, that of the first item of *queue* included, may share its transaction."""
        item = queue.first
        if item.alone or item.parking is not None or not isinstance(item.work, Message):
            return 1
        return self._processor.transaction_events_max(item.work)

    async def _run(self, queues: list[KeyQueue]) -> None:
        try:
            if len(queues) > 1:
                await self._handle_together(queues)
            else:
                await self._step(queues[0])
        except BaseException as error:
            if self._closed and isinstance(error, asyncio.CancelledError):
                raise
            # No exception of the application's code may end the consumer.
            self._failed(queues, error if isinstance(error, Exception) else HandlerAborted(error))
        else:
            self._database_failures = 0

    async def _handle_together(self, queues: list[KeyQueue]) -> None:
        deliveries: list[Delivery] = []
        included: list[KeyQueue] = []
        for queue in queues:
            message = queue.first.work
            assert isinstance(message, Message)
            try:
                event = self._processor.read(message)
            except BaseException:  # noqa: BLE001 - the message is tried alone; then the error counts
                self._try_alone(queue)
                continue
            if event is None:
                self._skip(queue)
            else:
                included.append(queue)
                deliveries.append(Delivery(message, event))
        try:
            outcomes = await self._processor.handle(deliveries) if deliveries else []
        except DATABASE_DOWN:
            queues[:] = included
            raise
        except Exception:  # noqa: BLE001 - each event is tried alone; then its failure counts
            self._signals.emit(ConsumerSignal.SPLIT)
            for queue in included:
                self._try_alone(queue)
            return
        for queue, outcome in zip(included, outcomes, strict=True):
            self._apply(queue, outcome)

    async def _step(self, queue: KeyQueue) -> None:
        match queue.first.work, queue.first.parking:
            case Message() as message, None:
                await self._handle(queue, message)
            case Message() as message, parking:
                await self._park(queue, message, parking)
            case Replay() as replay, None:
                await self._replay(queue, replay)
            case Replay() as replay, parking:
                await self._processor.replayer.park_again(replay, parking)
                _log.error(
                    "replay failed; the dead letter stays parked",
                    group=self._group,
                    letter_id=parking.letter_id,
                    traceback=traceback_of(parking.failure),
                )
                self._signals.emit(ConsumerSignal.REPLAY_FAILED)
                self._finish(queue)

    async def _handle(self, queue: KeyQueue, message: Message) -> None:
        event = self._processor.read(message)
        if event is None:
            self._skip(queue)
            return
        [outcome] = await self._processor.handle([Delivery(message, event)])
        self._apply(queue, outcome)

    async def _replay(self, queue: KeyQueue, replay: Replay) -> None:
        item = queue.first
        replayed = await self._processor.replayer.replay(
            replay,
            after_id=item.replayed_to,
            letters_max=1 if replay.key is None else self._processor.replay_letters_max,
        )
        if replayed.letters and replay.key is not None:  # the key may have another letter
            item.failures = item.database_failures = item.isolated_failures = 0
            item.replayed_to = replayed.last_id
            queue.let_messages_pass(replayed.letters)
            self._make_ready(queue)
        else:
            self._finish(queue)

    async def _park(self, queue: KeyQueue, message: Message, parking: Parking) -> None:
        last_attempt = queue.first.database_failures >= _PARKING_ATTEMPTS_MAX
        outcome = await self._processor.park(message, parking, last_attempt=last_attempt)
        if outcome is Outcome.NOT_BLOCKED:
            queue.first.parking = None
            self._make_ready(queue, first=True)
            return
        if outcome is Outcome.PARKED and not isinstance(parking.failure, KeyBlocked):
            topic, partition = message.partition
            _log.error(
                "message parked; see `relaybox dead-letters list`",
                group=self._group,
                topic=topic,
                partition=partition,
                offset=message.offset,
                attempts=parking.attempts,
                traceback=traceback_of(parking.failure),
            )
        self._finish(queue)

    def _apply(self, queue: KeyQueue, outcome: Outcome) -> None:
        self._commits += outcome is Outcome.COMMITTED
        if outcome is Outcome.BLOCKED:
            self._park_next(queue, Parking(failure=KeyBlocked(), attempts=0))
        else:
            self._finish(queue)

    def _skip(self, queue: KeyQueue) -> None:
        self._signals.emit(ConsumerSignal.TYPE_NOT_SUBSCRIBED)
        self._finish(queue)

    def _finish(self, queue: KeyQueue) -> None:
        queue.partition.finish_first(queue)
        if queue.state is KeyState.READY:
            self._make_ready(queue)

    def _park_next(self, queue: KeyQueue, parking: Parking) -> None:
        """Park the first item of *queue* in the next transaction."""
        queue.first.parking = parking
        queue.first.database_failures = 0
        self._make_ready(queue, first=True)

    def _try_alone(self, queue: KeyQueue) -> None:
        queue.first.alone = True
        self._make_ready(queue)

    def _make_ready(self, queue: KeyQueue, *, first: bool = False) -> None:
        queue.state = KeyState.READY
        self._ready.add(queue, first=first)

    def _failed(self, queues: list[KeyQueue], error: Exception) -> None:
        failure = error.__cause__ if isinstance(error, ReplayFailed) else error
        assert failure is not None
        for queue in queues:
            self._count_isolated(queue.first, failure)
        if database_down := isinstance(failure, DATABASE_DOWN):
            self._wait_for_database(failure)
        else:
            self._database_failures = 0  # the database has responded
        for queue in queues:
            self._failed_alone(queue, error, failure, database_down=database_down)

    def _count_isolated(self, item: Item, failure: BaseException) -> None:
        if isinstance(failure, DATABASE_ERRORS):
            item.isolated_failures += item.commits_seen is not None and self._commits > item.commits_seen
            item.commits_seen = self._commits

    def _failed_alone(
        self, queue: KeyQueue, error: Exception, failure: BaseException, *, database_down: bool
    ) -> None:
        item = queue.first
        isolated = item.isolated_failures
        # Parking never counts as a failure of the handler: it is repeated until the letter is written.
        counts = item.parking is None and not is_database_failure(failure, isolated_failures=isolated)
        item.failures += counts
        item.database_failures += not counts
        step = decide_after_failure(
            failure if counts else DatabaseUnavailable(),
            failures=item.failures,
            database_failures=item.database_failures,
            isolated_failures=isolated if counts else 0,
        )
        match step:
            case Retry():
                trace = traceback_of(failure)
                _log.warning(
                    "handler failed; retrying", **self._place(item), pause_s=step.pause_s, traceback=trace
                )
                self._signals.emit(ConsumerSignal.RETRYING)
                self._pause(queue, step.pause_s)
            case WaitForDatabase():
                if not database_down:
                    _log.warning(
                        "consumer waits for the database",
                        **self._place(item),
                        pause_s=step.pause_s,
                        reason=str(failure),
                    )
                    self._signals.emit(ConsumerSignal.WAITING_FOR_DATABASE)
                # Also if the database is down: then other keys show whether only this key has such errors.
                self._pause(queue, step.pause_s)
            case GiveUp():
                self._give_up(queue, error, failure)
            case _:
                assert_never(step)

    def _place(self, item: Item) -> dict[str, str | int | None]:
        """Return the fields of a log entry that name the message or dead letter of *item*."""
        topic, partition = item.work.partition
        place: dict[str, str | int | None] = {"group": self._group, "topic": topic, "partition": partition}
        if isinstance(item.work, Message):
            return {**place, "offset": item.work.offset, "event_type": item.work.header_type}
        return {**place, "letter_id": item.work.letter_id}

    def _give_up(self, queue: KeyQueue, error: Exception, failure: BaseException) -> None:
        item = queue.first
        letter_id = error.letter_id if isinstance(error, ReplayFailed) else None
        may_stop = letter_id is None and not isinstance(failure, ParkedByOperator)
        if may_stop and isinstance(item.work, Message) and self._processor.stops_at(item.work):
            self._on_stop(self._processor.stopped_by(item.work, item.failures, failure))
            return
        attempts = failure.processes if isinstance(failure, HandlerEndedProcess) else item.failures
        self._park_next(queue, Parking(failure=failure, attempts=attempts, letter_id=letter_id))

    def _pause(self, queue: KeyQueue, pause_s: float) -> None:
        queue.state = KeyState.PAUSED
        self._paused += 1
        asyncio.get_running_loop().call_later(pause_s, self._resume, queue)

    def _resume(self, queue: KeyQueue) -> None:
        self._paused -= 1
        self._make_ready(queue)
        self.dispatch()

    def _wait_for_database(self, error: Exception) -> None:
        if self._database_pause is not None:
            return
        self._database_failures += 1
        pause_s = database_pause_s(self._database_failures)
        _log.warning("consumer waits for the database", pause_s=pause_s, reason=str(error))
        self._signals.emit(ConsumerSignal.WAITING_FOR_DATABASE)
        self._database_pause = asyncio.get_running_loop().call_later(pause_s, self._try_database)

    def _try_database(self) -> None:
        self._database_pause = None
        self.dispatch()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._replaying.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_stop(error)
        self.dispatch()
