"""When a lane that failed is tried again, and when it counts as stuck (G36)."""

import pytest
from relaybox.relay._lane_troubles import LaneTroubles


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_lane_is_tried_again_after_pauses_that_grow_to_two_seconds() -> None:
    clock = Clock()
    troubles = LaneTroubles(clock)
    assert troubles.may_try(3)
    pauses = [troubles.begin(3, "x") for _ in range(7)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert not troubles.may_try(3)
    clock.now_s += 2.0
    assert troubles.may_try(3)
    troubles.end(3)
    assert troubles.begin(3, "x", at_least_s=5.0) == 5.0


@pytest.mark.guarantee("G36")
def test_lane_that_fails_for_ten_seconds_is_stuck_until_it_publishes() -> None:
    clock = Clock()
    troubles = LaneTroubles(clock)
    troubles.begin(3, "first")
    clock.now_s += 9.9
    troubles.begin(3, "last")
    assert troubles.stuck(()) == {}
    clock.now_s += 0.1
    assert troubles.stuck(()) == {3: "last"}
    assert troubles.stuck({3}) == {}  # open, and has not failed for 10 s
    troubles.begin(3, "again")
    assert troubles.stuck({3}) == {3: "again"}
    troubles.end(3)
    assert troubles.stuck(()) == {}


def test_lane_that_is_open_and_quiet_for_a_while_is_not_stuck() -> None:
    clock = Clock()
    troubles = LaneTroubles(clock)
    troubles.begin(3, "x")
    troubles.begin(4, "x")
    clock.now_s += 15.0
    assert troubles.stuck({3}) == {4: "x"}


def test_lane_of_another_relay_is_forgotten() -> None:
    clock = Clock()
    troubles = LaneTroubles(clock)
    troubles.begin(3, "x")
    troubles.begin(4, "x")
    troubles.keep({4})
    clock.now_s += 10.0
    assert troubles.stuck(()) == {4: "x"}
    assert troubles.may_try(3)
