"""When a lane that failed is retried, and when it counts as stuck (G36)."""

import pytest
from relaybox.relay._lanes import LaneFailures


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_lane_is_retried_after_pauses_that_grow_to_two_seconds() -> None:
    clock = Clock()
    failures = LaneFailures(clock)
    assert failures.may_retry(3)
    pauses = [failures.record(3, "x") for _ in range(7)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert not failures.may_retry(3)
    clock.now_s += 2.0
    assert failures.may_retry(3)
    failures.clear(3)
    assert failures.record(3, "x", at_least_s=5.0) == 5.0


@pytest.mark.guarantee("G36")
def test_lane_that_fails_for_ten_seconds_is_stuck_until_it_publishes() -> None:
    clock = Clock()
    failures = LaneFailures(clock)
    failures.record(3, "first")
    clock.now_s += 9.9
    failures.record(3, "last")
    assert failures.stuck(()) == {}
    clock.now_s += 0.1
    assert failures.stuck(()) == {3: "last"}
    assert failures.stuck({3}) == {}  # The lane is open and has not failed for 10 s.
    failures.record(3, "again")
    assert failures.stuck({3}) == {3: "again"}
    failures.clear(3)
    assert failures.stuck(()) == {}


def test_open_lane_without_failures_for_10_s_is_not_stuck() -> None:
    clock = Clock()
    failures = LaneFailures(clock)
    failures.record(3, "x")
    failures.record(4, "x")
    clock.now_s += 15.0
    assert failures.stuck({3}) == {4: "x"}


def test_lane_of_another_relay_is_forgotten() -> None:
    clock = Clock()
    failures = LaneFailures(clock)
    failures.record(3, "x")
    failures.record(4, "x")
    failures.forget_others({4})
    clock.now_s += 10.0
    assert failures.stuck(()) == {4: "x"}
    assert failures.may_retry(3)
