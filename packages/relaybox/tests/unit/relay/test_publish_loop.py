"""When the publish loop starts batches, and which rows it holds back; the servers are imitated."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from relaybox.db import Database
from relaybox.relay import _batches, _publish_loop
from relaybox.relay._batches import Batch, Delivery, InFlightBatches, Outcome, Prepared
from relaybox.relay._errors import LinkDown, RecordRefused
from relaybox.relay._messages import Message
from relaybox.relay._plan import BreakerState
from relaybox.relay._postgres import Connections, Lane
from relaybox.relay._publish_loop import PublishLoop
from relaybox.relay._statistics import Counters, RelaySignal
from relaybox.settings import PostgresSettings, RelaySettings

from tests.fixtures.bounds import WAIT_S

LANES = [Lane(lane=number, epoch=1, valid_until_s=float("inf")) for number in (0, 1)]
ATTRIBUTES = ("1", "T", None, None, None, None, None, None)
PROMPT_S = 1.0
#: No test waits for a poll.
POLL_S = 600.0
#: The imitated queries do not use it.
CONNECTION: Any = None


def message(seq: int, lane: int, key: str | None = None) -> Message:
    return Message(seq, lane, 1, "t", key, 0, b"{}", ATTRIBUTES, "binary", UUID(int=seq))


class Kafka(Delivery):
    """A delivery with a batch per lane, each of which ends by :meth:`finish`."""

    def __init__(self, *, one_batch_at_a_time: bool) -> None:
        self.one_batch_at_a_time = one_batch_at_a_time
        #: ``seq`` of the rows of each batch that was started, by start.
        self.started: list[list[int]] = []
        self.down: LinkDown | None = None
        #: Number of calls of :meth:`connect`.
        self.connected = 0
        self._outcomes: dict[int, tuple[Batch, asyncio.Future[Outcome]]] = {}

    async def connect(self) -> None:
        self.connected += 1
        if self.down is not None:
            raise self.down

    def ready(self, lanes: Sequence[Lane]) -> list[Lane]:
        return list(lanes)

    def paused_lanes(self) -> frozenset[int]:
        return frozenset()

    async def prepare(self, messages: Sequence[Message]) -> Prepared:
        lanes = sorted({each.lane for each in messages})
        rows = {lane: [each for each in messages if each.lane == lane] for lane in lanes}
        batches = [Batch(messages=rows[lane], lanes=frozenset({lane})) for lane in lanes]
        return Prepared(batches=batches, outcome=Outcome())

    def publish(self, batch: Batch) -> asyncio.Task[Outcome]:
        [lane] = batch.lanes
        assert lane not in self._outcomes, "the lane's last batch has not ended"
        self.started.append([each.seq for each in batch.messages])
        result = asyncio.get_running_loop().create_future()
        self._outcomes[lane] = batch, result

        async def finished() -> Outcome:
            return await result

        return asyncio.create_task(finished())

    def finish(self, lane: int, outcome: Outcome | None = None) -> None:
        """End the batch of *lane*; without *outcome* all its rows were published."""
        batch, result = self._outcomes.pop(lane)
        result.set_result(outcome or Outcome(sent=list(batch.messages)))

    def take_link_failure(self) -> None:
        return None

    def finish_all(self) -> None:
        for lane in list(self._outcomes):
            self.finish(lane)


class Waits(InFlightBatches):
    """Batches in flight which are never late; records after which time they would be."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: list[float | None] = []

    async def wait_for_prompt(self, limit_s: float | None) -> None:
        self.limits.append(limit_s)
        await super().wait_for_prompt(None)


class Running:
    """A publish loop that runs, and the tables from which it reads."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, batch_size: int, one_batch_at_a_time: bool
    ) -> None:
        self.kafka = Kafka(one_batch_at_a_time=one_batch_at_a_time)
        self.rows: list[Message] = []
        #: Maximum number of rows, and lanes, of each query.
        self.queries: list[tuple[int, list[int]]] = []
        self.counters = Counters()
        self.signals: list[RelaySignal] = []
        self.busy: frozenset[int] = frozenset()
        self._changed = asyncio.Event()
        lanes: Any = SimpleNamespace(
            usable=lambda: LANES,
            split_wanted=False,
            set_busy=self._set_busy,
            has_idle_surplus=lambda: False,
        )
        watermark = SimpleNamespace(poll_start=lambda: 0, advance=self._nothing)
        heartbeat: Any = SimpleNamespace(
            work_available=asyncio.Event(), renew_now=asyncio.Event(), low_watermark=watermark
        )
        self.heartbeat = heartbeat
        self.loop = PublishLoop(
            NoConnections(Database(PostgresSettings(port=1, password=SecretStr("unused")))),
            self.kafka,
            RelaySettings(batch_size=batch_size, poll_interval=POLL_S),
            lanes,
            heartbeat,
            self.counters,
            self._signal,
        )
        self.loop.in_flight = self.waits = Waits()
        monkeypatch.setattr(_batches, "fetch_batch", self._fetch)
        monkeypatch.setattr(_publish_loop, "use_partial_indexes", self._nothing)
        monkeypatch.setattr(_publish_loop, "requeue_after_outage", self._requeue)
        monkeypatch.setattr(_publish_loop, "seconds_until_due", self._nothing)
        #: Lanes whose rows were made PENDING again, by statement.
        self.requeued: list[list[int]] = []

    def insert(self, *rows: Message) -> None:
        self.rows += rows
        self.heartbeat.work_available.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition*, which a step of the loop changes, is true."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def idle(self) -> None:
        """Wait until the loop waits for a notification."""
        count = self.signals.count(RelaySignal.IDLE)
        self.heartbeat.work_available.set()
        await self.until(lambda: self.signals.count(RelaySignal.IDLE) > count)

    def _signal(self, signal: RelaySignal) -> None:
        self.signals.append(signal)
        self._changed.set()

    def _set_busy(self, lanes: frozenset[int]) -> None:
        self.busy = lanes
        self._changed.set()

    async def _nothing(self, *_: Any, **__: Any) -> None:
        return None

    async def _requeue(self, _connection: None, lanes: Sequence[Lane]) -> int:
        self.requeued.append([lane.lane for lane in lanes])
        return 0

    async def _fetch(
        self, _connection: None, lanes: Iterable[Lane], *, rows_max: int, in_flight: Collection[int], **_: Any
    ) -> list[Message]:
        numbers = [lane.lane for lane in lanes]
        self.queries.append((rows_max, numbers))
        self._changed.set()
        found = [row for row in self.rows if row.lane in numbers and row.seq not in in_flight]
        return found[:rows_max]


class NoConnections(Connections):
    """Connections to no server."""

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Any]:
        yield CONNECTION


@asynccontextmanager
async def running(
    monkeypatch: pytest.MonkeyPatch, *, batch_size: int = 100, one_batch_at_a_time: bool = False
) -> AsyncGenerator[Running]:
    """Run a publish loop whose recorder records nothing, and stop it at the end."""
    relay = Running(monkeypatch, batch_size=batch_size, one_batch_at_a_time=one_batch_at_a_time)
    task = asyncio.create_task(relay.loop.run())
    yield relay
    relay.loop.stop()
    relay.kafka.finish_all()
    async with asyncio.timeout(WAIT_S):
        await task


async def spin() -> None:
    """Let all tasks run that need not wait."""
    for _ in range(50):
        await asyncio.sleep(0)


def rows_of(*lanes: int, count: int) -> list[Message]:
    """Return *count* rows, of *lanes* in turn."""
    return [message(seq, lanes[seq % len(lanes)]) for seq in range(count)]


@pytest.mark.parametrize(("one_batch_at_a_time", "limit_s"), [(False, PROMPT_S), (True, None)])
async def test_backlog_starts_the_batches_of_all_lanes_together(
    monkeypatch: pytest.MonkeyPatch, one_batch_at_a_time: bool, limit_s: float | None
) -> None:
    async with running(monkeypatch, batch_size=2, one_batch_at_a_time=one_batch_at_a_time) as relay:
        relay.insert(*rows_of(0, 1, count=8))
        await relay.until(lambda: len(relay.kafka.started) == 2)
        relay.kafka.finish(1)
        await spin()
        assert relay.kafka.started == [[0], [1]]
        relay.kafka.finish(0)
        await relay.until(lambda: len(relay.kafka.started) == 4)
        assert relay.kafka.started[2:] == [[2, 4], [3, 5]]
        assert set(relay.waits.limits) == {limit_s}
        assert [rows_max for rows_max, _ in relay.queries[:3]] == [2, 4, 8]


async def test_lane_without_a_backlog_waits_for_no_other_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as relay:
        relay.insert(message(1, lane=0))
        await relay.until(lambda: relay.kafka.started == [[1]])
        relay.insert(message(2, lane=0), message(3, lane=1))
        await relay.until(lambda: relay.kafka.started == [[1], [3]])
        assert relay.waits.limits == []
        relay.kafka.finish(0)
        await relay.until(lambda: relay.kafka.started == [[1], [3], [2]])


@pytest.mark.guarantee("G21")
@pytest.mark.parametrize("published", [0, 1])
async def test_rows_read_ahead_wait_for_unpublished_rows_of_their_lane(
    monkeypatch: pytest.MonkeyPatch, published: int
) -> None:
    rows = rows_of(0, count=8)
    async with running(monkeypatch, batch_size=2) as relay:
        relay.insert(*rows)
        await relay.until(lambda: len(relay.queries) == 3 and relay.kafka.started == [[0, 1]])
        relay.kafka.finish(0, Outcome(sent=rows[:published]))
        await relay.until(lambda: len(relay.kafka.started) == 2)
        assert relay.kafka.started[1][0] == published


@pytest.mark.guarantee("G34")
async def test_rows_after_a_faulty_row_wait_until_it_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    first = message(1, lane=0, key="a")
    async with running(monkeypatch) as relay:
        relay.insert(first)
        await relay.until(lambda: relay.kafka.started == [[1]])
        relay.rows += [message(2, lane=0, key="a"), message(3, lane=0, key="b")]
        relay.kafka.finish(0, Outcome(faulty=[(first, RecordRefused("refused"))]))
        await relay.until(lambda: len(relay.kafka.started) == 2)
        relay.kafka.finish(0)
        await relay.idle()
        assert relay.kafka.started == [[1], [3]]
        assert relay.busy == {0}, "the lane is kept until the failure is recorded"


@pytest.mark.guarantee("G25")
async def test_rows_wait_for_kafka_and_one_probe_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    down = LinkDown("away")
    async with running(monkeypatch) as relay:
        relay.insert(message(1, lane=0))
        await relay.until(lambda: relay.kafka.started == [[1]])
        relay.rows += [message(2, lane=0), message(3, lane=1)]
        relay.kafka.down = down
        relay.kafka.finish(0, Outcome(link=down))
        await relay.until(lambda: relay.loop.breaker.state is BreakerState.OPEN)
        asked = len(relay.queries)
        assert (relay.counters.link_outages_total, relay.loop.breaker.reason) == (1, down)
        await relay.until(lambda: relay.kafka.connected >= 3)
        assert (relay.kafka.started, len(relay.queries)) == ([[1]], asked)
        relay.kafka.down = None
        await relay.until(lambda: len(relay.kafka.started) == 2)
        assert (relay.kafka.started[1], relay.queries[asked]) == ([1], (1, [0, 1]))
        assert RelaySignal.LINK_UP not in relay.signals
        relay.kafka.finish(0)
        await relay.until(lambda: len(relay.kafka.started) == 4)
        assert relay.kafka.started[2:] == [[2], [3]]
        assert relay.signals.count(RelaySignal.LINK_DOWN) == relay.signals.count(RelaySignal.LINK_UP) == 1
        assert relay.requeued == [[0, 1], [0, 1]], "at the start, and after the outage"


@pytest.mark.guarantee("G25")
async def test_rows_are_requeued_once_per_lane_and_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as relay:
        await relay.idle()
        await relay.idle()
        assert relay.requeued == [[0, 1]]
        relay.loop.requeue_soon()
        await relay.idle()
        assert relay.requeued == [[0, 1], [0, 1]]
