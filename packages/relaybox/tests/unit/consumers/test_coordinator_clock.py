"""When a Kafka client has lost its group."""

from typing import Any

import pytest
from relaybox.consumers._coordinator_clock import COORDINATOR_LOST_S, CoordinatorClock, is_coordinated


def statistics(group: str, *brokers: str) -> dict[str, Any]:
    return {"cgrp": {"state": group}, "brokers": {str(at): {"state": one} for at, one in enumerate(brokers)}}


@pytest.mark.parametrize(
    ("found", "coordinated"),
    [
        (statistics("up", "UP", "INIT"), True),
        (statistics("query-coord", "UP", "DOWN"), False),
        (statistics("init", "UP"), False),
        (statistics("wait-coord", "DOWN", "CONNECT"), True),
        ({"brokers": {"0": {"state": "UP"}}}, False),
        ({}, True),
    ],
)
def test_client_without_a_coordinator_is_recognised(found: dict[str, Any], coordinated: bool) -> None:
    assert is_coordinated(found) is coordinated


def observed(clock: CoordinatorClock, since_s: float, seconds: float, *, coordinated: bool = False) -> float:
    """Observe twice a second; return the time."""
    for step in range(int(seconds * 2)):
        clock.observe(since_s + (step + 1) / 2, coordinated=coordinated)
    return since_s + seconds


def test_client_is_replaced_after_its_time_and_each_time_again() -> None:
    clock = CoordinatorClock(100.0)
    now_s = observed(clock, 100.0, COORDINATOR_LOST_S - 1)
    assert not clock.is_over
    now_s = observed(clock, now_s, 1)
    assert clock.is_over
    clock.replaced()
    now_s = observed(clock, now_s, COORDINATOR_LOST_S - 1)
    assert not clock.is_over
    assert clock.lost_s == 2 * COORDINATOR_LOST_S - 1
    observed(clock, now_s, 1)
    assert clock.is_over


def test_coordinator_that_is_found_resets_the_clock() -> None:
    clock = CoordinatorClock(0.0)
    now_s = observed(clock, 0.0, COORDINATOR_LOST_S)
    clock.replaced()
    clock.observe(now_s, coordinated=True)
    assert (clock.lost_s, clock.is_over) == (0.0, False)
    observed(clock, now_s, COORDINATOR_LOST_S)
    assert clock.is_over


def test_suspended_process_has_not_lost_its_group() -> None:
    clock = CoordinatorClock(0.0)
    clock.observe(3_600.0, coordinated=False)
    assert not clock.is_over
