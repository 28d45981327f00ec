"""The next action of the publish loop, for any state and in whole runs against a model."""

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from relaybox.relay import BreakerState
from relaybox.relay._messages import Message
from relaybox.relay._plan import (
    Action,
    Fetch,
    FetchPhase,
    LoopState,
    Publish,
    Receive,
    Reconnect,
    Refresh,
    Split,
    Stop,
    Wait,
    plan_fetch,
    plan_next,
    select_publishable,
)

ATTRIBUTES = ("1", "T", None, None, None, None, None, None)
BATCH_SIZE = 2
LANES = (0, 1, 2)
KEYS = ("a", "b", None)

lanes = st.frozensets(st.sampled_from(LANES))
states = st.builds(
    LoopState,
    stopping=st.booleans(),
    breaker=st.sampled_from(BreakerState),
    idle=st.booleans(),
    refreshed=st.booleans(),
    split_wanted=st.booleans(),
    fetch=st.sampled_from(FetchPhase),
    rows_read=st.integers(0, 10),
    fetching_ahead=st.booleans(),
    rows_held_back=st.booleans(),
    batch_size=st.just(BATCH_SIZE),
    batch_rows=st.sampled_from([BATCH_SIZE, 8]),
    ready_lanes=lanes.map(sorted),
    paused_lanes=lanes,
    in_flight_lanes=lanes,
    late_lanes=lanes,
    late_rows=st.integers(0, 10),
    one_batch_at_a_time=st.booleans(),
).map(lambda state: replace(state, in_flight_lanes=state.in_flight_lanes | state.late_lanes))


def message(seq: int, lane: int, key: str | None) -> Message:
    return Message(seq, lane, 1, "t", key, 0, b"{}", ATTRIBUTES, "binary", UUID(int=seq))


@given(states)
def test_stop_is_planned_exactly_when_it_was_requested(state: LoopState) -> None:
    assert isinstance(plan_next(state), Stop) == state.stopping


@pytest.mark.guarantee("G25")
@given(states)
def test_open_breaker_fetches_and_publishes_nothing(state: LoopState) -> None:
    if state.breaker is BreakerState.OPEN:
        assert isinstance(plan_next(state), Stop | Wait | Reconnect)


@pytest.mark.guarantee("G25")
@given(states)
def test_probe_is_one_row_and_waits_for_batches_in_flight(state: LoopState) -> None:
    fetch = plan_fetch(replace(state, breaker=BreakerState.HALF_OPEN))
    assert fetch.rows_max == 1
    assert not (fetch.lanes and state.in_flight_lanes)


@pytest.mark.guarantee("G21")
@given(states)
def test_fetch_reads_from_ready_lanes_that_can_publish_the_rows(state: LoopState) -> None:
    action = plan_next(state)
    if isinstance(action, Fetch):
        assert set(action.lanes) <= set(state.ready_lanes) - state.late_lanes or not state.backlog
        if not state.backlog:
            assert not set(action.lanes) & (state.in_flight_lanes | state.paused_lanes)
        assert action.rows_max >= 1


@given(states)
def test_rows_are_fetched_ahead_only_in_a_backlog_without_held_rows(state: LoopState) -> None:
    action = plan_next(state)
    if isinstance(action, Fetch) and state.fetch is FetchPhase.READ:
        assert state.backlog
        assert state.rows_read > 0
        assert not state.fetching_ahead
        assert not state.rows_held_back


@given(states)
def test_late_rows_leave_room_for_fewer_rows_of_the_next_query(state: LoopState) -> None:
    rows_max = plan_fetch(replace(state, breaker=BreakerState.CLOSED)).rows_max
    assert rows_max >= BATCH_SIZE
    if rows_max > BATCH_SIZE:
        assert rows_max + state.late_rows == state.batch_rows
    else:
        assert state.batch_rows - state.late_rows <= BATCH_SIZE


@given(st.lists(st.tuples(st.sampled_from(LANES), st.sampled_from(KEYS))), lanes, lanes, st.booleans())
def test_selection_keeps_order_and_omits_busy_lanes_and_blocked_keys(
    rows: list[tuple[int, str | None]], busy: frozenset[int], usable: frozenset[int], blocked: bool
) -> None:
    messages = [message(seq, lane, key) for seq, (lane, key) in enumerate(rows)]
    keys = {"a"} if blocked else set[str]()
    selected = select_publishable(
        messages,
        fetched_fences={(lane, 1) for lane in LANES},
        usable_fences={(lane, 1) for lane in usable},
        busy_lanes=busy,
        blocked_keys=keys,
    )
    assert list(selected) == [
        each for each in messages if each.lane in usable and each.lane not in busy and each.key not in keys
    ]


class PublishLoopModel(RuleBasedStateMachine):
    """Drives the plan against a model: rows of three lanes, batches that succeed, fail, or stay in flight."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[Message] = []
        self.in_flight: dict[int, list[Message]] = {}
        self.late: set[int] = set()
        self.fetches: list[tuple[tuple[int, ...], list[Message], set[int], bool]] = []
        self.published: list[Message] = []
        self.seq = 0
        self.breaker = BreakerState.CLOSED
        self.idle = self.refreshed = self.split_wanted = self.held_back = False
        self.batch_rows = BATCH_SIZE
        self.last: Action = Refresh()

    def state(self) -> LoopState:
        _lanes, rows, stale, received = self.fetches[0] if self.fetches else ((), [], set[int](), False)
        phase = FetchPhase.READ if received else FetchPhase.READING
        return LoopState(
            stopping=False,
            breaker=self.breaker,
            idle=self.idle,
            refreshed=self.refreshed,
            split_wanted=self.split_wanted,
            fetch=phase if self.fetches else FetchPhase.NONE,
            rows_read=len(rows) if received else 0,
            fetching_ahead=len(self.fetches) > 1,
            rows_held_back=bool(stale) or self.held_back,
            batch_size=BATCH_SIZE,
            batch_rows=self.batch_rows,
            ready_lanes=LANES,
            paused_lanes=frozenset(),
            in_flight_lanes=frozenset(self.in_flight),
            late_lanes=frozenset(self.late),
            late_rows=sum(len(self.in_flight[lane]) for lane in self.late),
            one_batch_at_a_time=False,
        )

    def invalidate(self, lanes: set[int]) -> None:
        for _, _, stale, _ in self.fetches:
            stale |= lanes

    @rule(lane=st.sampled_from(LANES), count=st.integers(1, 6))
    def rows_are_committed(self, lane: int, count: int) -> None:
        for _ in range(count):
            self.seq += 1
            self.pending.append(message(self.seq, lane, f"key-{lane}"))
        self.idle = False

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), succeeds=st.booleans())
    def a_batch_finishes(self, data: st.DataObject, succeeds: bool) -> None:
        self.finish(data.draw(st.sampled_from(sorted(self.in_flight))), succeeds=succeeds)

    @rule()
    def the_link_fails(self) -> None:
        self.breaker = BreakerState.OPEN
        for lane in list(self.in_flight):
            self.finish(lane, succeeds=False)
        self.invalidate(set(LANES))

    @rule()
    def more_lanes_are_wanted(self) -> None:
        self.split_wanted = True

    @rule(steps=st.integers(1, 5))
    def the_loop_continues(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def finish(self, lane: int, *, succeeds: bool) -> None:
        rows = self.in_flight.pop(lane)
        self.late.discard(lane)
        if succeeds:
            self.published += rows
            if self.breaker is BreakerState.HALF_OPEN:
                self.breaker = BreakerState.CLOSED
        else:
            self.pending = sorted([*rows, *self.pending])
            self.invalidate({lane})
        self.idle = False

    def finish_all(self) -> None:
        for lane in list(self.in_flight):
            self.finish(lane, succeeds=True)

    def step(self) -> None:
        self.last = action = plan_next(self.state())
        match action:
            case Refresh():
                self.refreshed = True
            case Reconnect():
                self.breaker, self.batch_rows = BreakerState.HALF_OPEN, BATCH_SIZE
                self.invalidate(set(LANES))
            case Split():
                self.finish_all()
                self.split_wanted = self.refreshed = False
                self.invalidate(set(LANES))
            case Fetch():
                self.fetch(action)
            case Receive():
                lanes_read, rows, stale, _ = self.fetches[0]
                self.fetches[0] = (lanes_read, rows, stale, True)
            case Publish():
                self.publish(action)
            case Wait():
                self.idle = False
                self.finish_all()
            case Stop():
                raise AssertionError(action)

    def fetch(self, action: Fetch) -> None:
        read = {each.seq for _, rows, _, _ in self.fetches for each in rows}
        rows = [each for each in self.pending if each.lane in action.lanes and each.seq not in read]
        rows = rows[: action.rows_max]
        if self.breaker is not BreakerState.HALF_OPEN:
            self.batch_rows = 2 * action.rows_max if len(rows) == action.rows_max else BATCH_SIZE
            self.batch_rows = min(self.batch_rows, 8)
        self.fetches.append((action.lanes, rows, set(), False))

    def publish(self, action: Publish) -> None:
        if action.wait_for_in_flight:
            self.late |= self.in_flight.keys()
        fetched_lanes, rows, stale, _ = self.fetches.pop(0)
        selected = select_publishable(
            rows,
            fetched_fences={(lane, 1) for lane in fetched_lanes},
            usable_fences={(lane, 1) for lane in LANES},
            busy_lanes=self.in_flight.keys() | stale,
            blocked_keys=(),
        )
        for each in selected:
            self.in_flight.setdefault(each.lane, []).append(each)
            self.pending.remove(each)
        self.invalidate({each.lane for each in rows if each not in selected})
        self.held_back = bool(rows) and not selected
        self.refreshed = False
        self.idle = not (selected or stale or self.fetches)

    @invariant()
    def keys_are_published_in_order(self) -> None:
        for lane in LANES:
            seqs = [each.seq for each in self.published if each.lane == lane]
            assert seqs == sorted(seqs)
            in_flight = [each.seq for each in self.in_flight.get(lane, [])]
            assert seqs[-1:] + in_flight == sorted(seqs[-1:] + in_flight)

    @invariant()
    def earlier_rows_of_a_lane_are_not_left_behind(self) -> None:
        for lane, rows in self.in_flight.items():
            waiting = [each.seq for each in self.pending if each.lane == lane]
            assert not waiting or max(each.seq for each in rows) < min(waiting)

    @invariant()
    def half_open_breaker_has_one_row_in_flight(self) -> None:
        if self.breaker is BreakerState.HALF_OPEN:
            assert sum(map(len, self.in_flight.values())) <= 1

    def teardown(self) -> None:
        """Check that everything is published when no more faults occur."""
        for _ in range(200 + 20 * self.seq):
            self.step()
            if not self.pending and not self.in_flight:
                break
        assert [each.seq for each in sorted(self.published)] == list(range(1, self.seq + 1))


PublishLoopModel.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestPublishLoopModel = PublishLoopModel.TestCase
TestPublishLoopModel.pytestmark = [pytest.mark.guarantee("G21")]
