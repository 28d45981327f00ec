"""Takeovers of several lanes, and what topics can still tell after a failover; the servers are imitated."""

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from relaybox.relay import _reconcile, _takeover
from relaybox.relay._claims import Claim, OwnedLane, RecoveryPlan
from relaybox.relay._errors import PublishedUnknown
from relaybox.relay._postgres import Lane
from relaybox.relay._reconcile import Reconciler
from relaybox.relay._takeover import Takeover, take_over
from relaybox.relay._transaction import LaneProducer
from relaybox.settings import KafkaSettings
from relaybox.verify._topics import Retention

from tests.fixtures.bounds import WAIT_S

HISTORY, EARLIER, A, B = (UUID(int=number) for number in (1, 2, 10, 11))
LANES = [Lane(lane=number, epoch=1, valid_until_s=0.0) for number in (0, 1)]
#: The imitated database does not use it.
CONNECTION: Any = None
#: Two equal offsets of a partition whose first records were removed.
FIRST, FOUND = int("1000"), int("1000")


class Producer(LaneProducer):
    """A producer that can always be opened."""

    def __init__(self, lane: int, number: int) -> None:
        self.lane, self.number = lane, number
        self.is_closed = False

    def open(self, limit_s: float = 0.0) -> None:
        """Open nothing."""

    def close(self) -> None:
        self.is_closed = True


class Servers:
    """A database and a control topic: the markers and the claims of lanes, and what a takeover records."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.owned = {0: HISTORY, 1: HISTORY}
        self.markers: dict[int, UUID] = {}
        self.claims: dict[int, list[Claim]] = {0: [], 1: []}
        self.recorded: dict[int, RecoveryPlan] = {}
        self.faults: dict[int, str] = {}
        self.producers: list[Producer] = []
        self.threads = ThreadPoolExecutor(1)
        for replacement in (
            self.use_partial_indexes,
            self.owned_lanes,
            self.list_claims,
            self.record_recovery,
            self.report_fault,
        ):
            monkeypatch.setattr(_takeover, replacement.__name__, replacement)
        monkeypatch.setattr(_reconcile, "fetch_rows", self.fetch_rows)

    async def use_partial_indexes(self, _connection: None) -> None:
        """Set nothing."""

    async def fetch_rows(self, _connection: None, *_: object) -> list[object]:
        """Return that no rows of the lanes are unsettled."""
        return []

    async def owned_lanes(self, _connection: None, _lanes: Sequence[Lane]) -> dict[int, OwnedLane]:
        return {number: OwnedLane(None, history_id, 6) for number, history_id in self.owned.items()}

    async def list_claims(self, _connection: None, _lanes: Sequence[int]) -> dict[int, list[Claim]]:
        return self.claims

    async def record_recovery(
        self, _connection: None, lane: Lane, plan: RecoveryPlan, _history_id: UUID
    ) -> bool:
        self.recorded[lane.lane] = plan
        return True

    async def report_fault(self, _connection: None, lane: Lane, reason: str) -> None:
        self.faults[lane.lane] = reason

    def ensure_partitions(self, _lanes: Sequence[int]) -> None:
        """Create nothing."""

    def lanes_with_open_transaction(self, _lanes: Sequence[int]) -> set[int]:
        return set()

    def read_last(self, _lanes: Sequence[int]) -> Mapping[int, UUID]:
        return self.markers

    def new_producer(self, lane: int, number: int) -> Producer:
        self.producers.append(Producer(lane, number))
        return self.producers[-1]

    async def take_over(self) -> Takeover:
        """Return the takeover of both lanes after the end of its threads."""
        markers: Any = self
        reconciler = Reconciler(KafkaSettings(port=1), HISTORY)
        takeover = await take_over(CONNECTION, LANES, markers, self.new_producer, self.threads, reconciler)
        self.threads.submit(lambda: None).result(WAIT_S)
        return takeover


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Generator[Servers]:
    servers = Servers(monkeypatch)
    yield servers
    servers.threads.shutdown()


@pytest.mark.guarantee("G31")
async def test_lane_whose_marker_is_unknown_is_stopped_and_others_open(servers: Servers) -> None:
    servers.markers = {0: B, 1: B}
    servers.claims[1] = [Claim(number=3, batch_id=B, previous_id=A, seqs=(7,))]
    takeover = await servers.take_over()
    assert takeover.faulty == [LANES[0]]
    assert [(opened.lane, opened.last_id) for opened in takeover.opened] == [(LANES[1], B)]
    assert [(lane, str(B) in reason) for lane, reason in servers.faults.items()] == [(0, True)]
    assert [(lane, list(plan.published_seqs)) for lane, plan in servers.recorded.items()] == [(1, [7])]
    assert [(producer.lane, producer.is_closed) for producer in servers.producers] == [(0, True), (1, False)]


@pytest.mark.guarantee("G31")
async def test_lane_of_another_owner_gets_no_producer(servers: Servers) -> None:
    del servers.owned[0]
    takeover = await servers.take_over()
    assert [opened.lane for opened in takeover.opened] == [LANES[1]]
    servers.owned = {}
    assert await servers.take_over() == Takeover()
    assert [producer.lane for producer in servers.producers] == [1]


@pytest.mark.guarantee("G35")
async def test_lane_of_another_history_is_fenced_with_all_four_producers(servers: Servers) -> None:
    servers.owned[1] = EARLIER
    takeover = await servers.take_over()
    numbers: dict[int, list[int]] = {0: [], 1: []}
    for producer in servers.producers:
        numbers[producer.lane].append(producer.number)
    assert numbers == {0: [6], 1: [7, 8, 9, 6]}
    assert [opened.producer.number for opened in takeover.opened] == [6, 6]
    assert sum(producer.is_closed for producer in servers.producers) == 3


class Topic:
    """A topic limited by size, whose first record has the offset 1,000."""

    def __init__(self, found: int) -> None:
        self.found = found

    def retention(self, _topics: object) -> dict[str, Retention]:
        return {"t": Retention(kept_s=float("inf"), by_size=True, compacted=False)}

    def beginnings(self, _count: object, since: datetime | None = None) -> dict[tuple[str, int], int]:
        return {("t", 0): FIRST if since is None else self.found}


@pytest.mark.guarantee("G35")
def test_topic_that_was_cut_at_the_wanted_time_may_lack_records() -> None:
    topic: Any = Topic(FOUND)
    with pytest.raises(PublishedUnknown, match="retention may have removed records of topic t"):
        _reconcile._starts(topic, {"t": 1}, {"t": datetime.now(UTC)})


@pytest.mark.guarantee("G35")
def test_topic_that_was_cut_before_the_wanted_time_has_all_records() -> None:
    topic: Any = Topic(FOUND + 1)
    assert _reconcile._starts(topic, {"t": 1}, {"t": datetime.now(UTC)}) == {("t", 0): FOUND + 1}
