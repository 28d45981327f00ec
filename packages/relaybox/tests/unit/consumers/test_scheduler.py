"""The scheduler and a partition's queues, with random messages, failures, pauses and replays."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch
from uuid import uuid4

import hypothesis.strategies as st
import pytest
from hypothesis import given
from relaybox.consumers import ConsumerSignal
from relaybox.consumers._key_queue import Parking, PartitionQueue, Replay
from relaybox.consumers._message import Message
from relaybox.consumers._processor import Delivery, Outcome, Processor
from relaybox.consumers._replayer import Replayed, ReplayFailed
from relaybox.consumers._scheduler import Scheduler
from relaybox.db import DatabaseBusy, DatabaseUnavailable, RetryTransaction
from relaybox.signals import SignalEmitter
from relaybox_types.envelope import EventEnvelope

PARTITION = ("domain-events", 0)
CONCURRENCY = 3


@dataclass
class Model:
    """A processor whose database is a dictionary, and what it checks at each step."""

    #: Errors of the next attempts, by offset.
    failures: dict[int, list[BaseException]]
    shared_events_max: int = 1
    #: Offsets in the order of their effects, by key.
    effects: dict[Any, list[int]] = field(default_factory=lambda: defaultdict(list))
    #: Unresolved letters in order, by key.
    letters: dict[Any, list[int]] = field(default_factory=lambda: defaultdict(list))
    active: Counter[Any] = field(default_factory=Counter)
    transactions: int = 0
    #: After which letter each replay began to search.
    searched_after: list[int] = field(default_factory=list[int])

    async def _transact(self, keys: list[Any]) -> None:
        self.transactions += 1
        assert self.transactions <= CONCURRENCY
        self.active.update(keys)
        assert not keys or max(self.active.values()) == 1, "two items of a key at once"
        try:
            await asyncio.sleep(0)
        finally:
            self.active.subtract(keys)
            self.transactions -= 1

    def _fail(self, offset: int) -> None:
        if errors := self.failures.get(offset):
            raise errors.pop()

    def close(self) -> None: ...

    @property
    def crash_watch(self) -> SimpleNamespace:
        return SimpleNamespace(is_watching=False)

    def transaction_events_max(self, message: Message) -> int:
        return self.shared_events_max

    def stops_at(self, message: Message) -> bool:
        return False

    def read(self, message: Message) -> EventEnvelope:
        return cast("EventEnvelope", SimpleNamespace(event_id=uuid4()))

    async def handle(self, deliveries: list[Delivery]) -> list[Outcome]:
        messages = [delivery.message for delivery in deliveries]
        await self._transact([message.key for message in messages])
        blocked = [bool(self.letters[message.key]) for message in messages]
        for message, is_blocked in zip(messages, blocked, strict=True):
            if not is_blocked:
                self._fail(message.offset)
        for message, is_blocked in zip(messages, blocked, strict=True):
            if not is_blocked:
                self.effects[message.key].append(message.offset)
        return [Outcome.BLOCKED if one else Outcome.COMMITTED for one in blocked]

    async def park(self, message: Message, parking: Parking, *, last_attempt: bool) -> Outcome:
        await self._transact([message.key])
        if parking.attempts == 0 and not self.letters[message.key]:
            return Outcome.NOT_BLOCKED
        self.letters[message.key].append(message.offset)
        return Outcome.PARKED

    @property
    def replayer(self) -> "Model":
        return self

    @property
    def replay_letters_max(self) -> int:
        return self.shared_events_max

    async def replay(self, replay: Replay, *, after_id: int, letters_max: int) -> Replayed:
        self.searched_after.append(after_id)
        await self._transact([replay.key])
        if not self.letters[replay.key]:
            return Replayed(0, 0)
        offset = self.letters[replay.key][0]
        try:
            self._fail(offset)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            raise ReplayFailed(offset) from error
        letters = self.letters[replay.key]
        failing = (place for place, one in enumerate(letters[:letters_max]) if self.failures.get(one))
        done = letters[: next(failing, letters_max)]
        del letters[: len(done)]
        self.effects[replay.key] += done
        return Replayed(len(done), done[-1])

    async def park_again(self, replay: Replay, parking: Parking) -> None:
        await self._transact([])


KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
ERRORS = st.sampled_from(
    [RuntimeError, RuntimeError, RuntimeError, DatabaseUnavailable, DatabaseBusy, SystemExit]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("message"), KEYS, st.lists(ERRORS, max_size=7)),
        st.tuples(st.just("replay"), KEYS, st.none()),
        st.tuples(st.just("wait"), st.integers(1, 6), st.none()),
    ),
    max_size=40,
)


async def settle(scheduler: Scheduler, done: Any) -> None:
    async with asyncio.timeout(30):
        while not done():  # noqa: ASYNC110 - each turn of the loop is a step of the model
            await asyncio.sleep(0)
    assert scheduler.running <= CONCURRENCY


def check_position(partition: PartitionQueue, read_to: int) -> None:
    unfinished = [
        item.work.offset
        for queue in partition._keys.values()
        for item in queue.items
        if isinstance(item.work, Message)
    ]
    assert partition.messages == len(unfinished)
    if partition.offsets.position is not None:
        assert partition.offsets.position == min(unfinished, default=read_to)
    assert all(queue.items for queue in partition._keys.values()), "a queue without items"


def start(
    model: Model, on_stop: Callable[[BaseException], None], concurrency: int = CONCURRENCY
) -> Scheduler:
    return Scheduler(
        cast("Processor", model),
        group="g",
        concurrency=concurrency,
        signals=SignalEmitter[ConsumerSignal](),
        on_stop=on_stop,
    )


def add_replay(scheduler: Scheduler, partition: PartitionQueue, key: bytes) -> None:
    queue = partition.add_replay(Replay(partition=PARTITION, key=key, letter_id=None))
    if queue is not None:
        scheduler.offer(queue)


async def play(
    steps: list[Any], model: Model, scheduler: Scheduler, partition: PartitionQueue
) -> dict[bytes, list[int]]:
    """Execute *steps*, and return the offsets of each key."""
    sent: dict[bytes, list[int]] = defaultdict(list)
    offset = 0
    for kind, value, errors in steps:
        if kind == "message":
            model.failures[offset] = [error() for error in errors]
            sent[value].append(offset)
            scheduler.offer(partition.add(Message(partition=PARTITION, offset=offset, key=value, value=b"")))
            offset += 1
            partition.offsets.read_to(offset)
        elif kind == "replay":
            add_replay(scheduler, partition, value)
        else:
            for _ in range(value):
                await asyncio.sleep(0)
        scheduler.dispatch()
        check_position(partition, offset)
    return sent


async def run(steps: list[Any], shared_events_max: int) -> None:
    model = Model(failures={}, shared_events_max=shared_events_max)
    stopped: list[BaseException] = []
    partition, scheduler = PartitionQueue(PARTITION), start(model, stopped.append)
    sent = await play(steps, model, scheduler, partition)
    await settle(scheduler, lambda: not partition._keys)
    model.failures.clear()
    for key in sent:
        add_replay(scheduler, partition, key)
    scheduler.dispatch()
    await settle(scheduler, lambda: not partition._keys)
    await scheduler.close(1)
    assert stopped == []
    assert {key: offsets for key, offsets in model.effects.items() if offsets} == sent
    assert partition.offsets.position == (sum(map(len, sent.values())) or None)
    assert (partition.messages, partition.bytes) == (0, 0)


@pytest.mark.guarantee("G42")
@given(STEPS, st.sampled_from([1, 2, 10]))
def test_scheduler_keeps_order_and_bounds_whatever_fails(steps: list[Any], shared_events_max: int) -> None:
    """Order of each key, one item of a key at once, the limit of transactions; each message is finished."""
    with (
        patch("relaybox.consumers._scheduler.traceback_of", lambda _: ""),
        patch("relaybox.consumers._policy._RETRY_PAUSES_S", (0.0, 0.0, 0.0)),
        patch("relaybox.consumers._policy._DATABASE_PAUSE_S", 0.0),
    ):
        asyncio.run(run(steps, shared_events_max))


def message(offset: int, key: bytes) -> Message:
    return Message(partition=PARTITION, offset=offset, key=key, value=b"")


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr("relaybox.consumers._policy._DATABASE_PAUSE_S", 0.0)


@pytest.mark.guarantee("G41")
@pytest.mark.parametrize("error", [DatabaseBusy, DatabaseUnavailable, RetryTransaction])
async def test_message_that_fails_while_other_keys_commit_is_parked(
    error: type[Exception], no_pauses: None
) -> None:
    model = Model(failures={0: [error() for _ in range(1_000)]})
    partition, scheduler = PartitionQueue(PARTITION), start(model, lambda _: None)
    scheduler.offer(partition.add(message(0, b"a")))
    for offset in range(1, 200):
        scheduler.offer(partition.add(message(offset, b"b")))
        scheduler.dispatch()
        left = len(model.failures[0]) - 1
        await settle(
            scheduler,
            lambda left=left: (
                len(partition._keys) == 0 or (partition.messages == 1 and len(model.failures[0]) <= left)
            ),
        )
    assert model.letters[b"a"] == [0]
    assert model.effects[b"b"] == list(range(1, 200))
    assert 20 <= 1_000 - len(model.failures[0]) <= 50


async def test_message_that_fails_while_no_key_commits_waits(no_pauses: None) -> None:
    model = Model(failures={0: [DatabaseBusy() for _ in range(300)]})
    partition, scheduler = PartitionQueue(PARTITION), start(model, lambda _: None)
    scheduler.offer(partition.add(message(0, b"a")))
    scheduler.dispatch()
    await settle(scheduler, lambda: not partition.messages)
    assert (model.effects[b"a"], model.letters[b"a"]) == ([0], [])


async def test_messages_of_a_key_with_many_letters_leave_the_partition() -> None:
    """They are parked between its replays, so that they do not fill the partition until the last one."""
    model = Model(failures={})
    model.letters[b"a"] = list(range(-100, 0))
    partition = PartitionQueue(PARTITION)
    scheduler = start(model, lambda _: None)
    add_replay(scheduler, partition, b"a")
    for offset in range(20):
        partition.add(Message(partition=PARTITION, offset=offset, key=b"a", value=b""))
    scheduler.dispatch()
    await settle(scheduler, lambda: partition.messages == 0)
    assert model.letters[b"a"]
    await settle(scheduler, lambda: not partition._keys)
    assert model.effects[b"a"] == [*range(-100, 0), *range(20)]
    # Each search begins after the last replayed letter, not with the first letter of the key.
    assert model.searched_after[:100] == [0, *range(-100, -1)]


@pytest.mark.guarantee("G42")
@pytest.mark.parametrize("concurrency", [1, CONCURRENCY])
async def test_message_does_not_wait_for_requested_replays(concurrency: int) -> None:
    model = Model(failures={})
    partition = PartitionQueue(PARTITION)
    scheduler = start(model, lambda _: None, concurrency)
    for number in range(100):
        key = f"letter {number}".encode()
        model.letters[key] = [-1]
        add_replay(scheduler, partition, key)
    scheduler.offer(partition.add(Message(partition=PARTITION, offset=0, key=b"a", value=b"")))
    scheduler.dispatch()
    await settle(scheduler, lambda: model.effects[b"a"])
    assert sum(map(bool, model.letters.values())) > 90
    await settle(scheduler, lambda: not partition._keys)


@pytest.mark.guarantee("G42")
async def test_replays_that_hang_leave_transactions_to_messages() -> None:
    model = Model(failures={})
    hanging = asyncio.Event()
    working = model.replay

    async def hang(replay: Replay, *, after_id: int, letters_max: int) -> Replayed:
        await hanging.wait()
        return Replayed(0, 0)

    model.replay = hang
    partition = PartitionQueue(PARTITION)
    scheduler = start(model, lambda _: None)
    for key in (b"a", b"b", b"c"):
        add_replay(scheduler, partition, key)
    scheduler.dispatch()
    for offset in range(5):
        key = f"message {offset}".encode()
        scheduler.offer(partition.add(Message(partition=PARTITION, offset=offset, key=key, value=b"")))
    scheduler.dispatch()
    await settle(scheduler, lambda: partition.messages == 0)
    model.replay = working
    hanging.set()
    await settle(scheduler, lambda: not partition._keys)
