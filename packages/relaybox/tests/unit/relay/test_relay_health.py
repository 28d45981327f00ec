"""The check of a relay for ``/readyz`` (G36)."""

import pytest
from relaybox.relay import BreakerState, Statistics, check_relay
from relaybox.relay._statistics import Counters
from relaybox.telemetry import HealthState


def figures(partitions: tuple[str, ...] = (), lanes: tuple[str, ...] = ()) -> Statistics:
    return Counters().snapshot(
        lanes=(0, 1),
        members=1,
        in_flight=0,
        breaker=BreakerState.CLOSED,
        partitions_unavailable=partitions,
        lanes_stuck=lanes,
    )


async def test_relay_that_publishes_everything_is_ready() -> None:
    result = await check_relay(figures)()
    assert (result.state, result.detail) == (HealthState.OK, None)


@pytest.mark.guarantee("G36")
async def test_relay_is_degraded_and_names_partitions_and_lanes() -> None:
    result = await check_relay(lambda: figures(("partition 3 has no leader",), ("lane 1 is stuck",)))()
    assert result.state is HealthState.DEGRADED
    assert result.detail == "partition 3 has no leader; lane 1 is stuck"


async def test_detail_lists_at_most_20_partitions_and_lanes() -> None:
    result = await check_relay(lambda: figures(tuple(f"p{number}" for number in range(100))))()
    assert (result.detail or "").count("; ") == 19
