"""Status and restart pause of a crashed part."""

import pytest
from relaybox.local import PartState, PartStatus
from relaybox.local._parts import describe_exit
from relaybox.local._restarts import restart_pause_s

FRESH = PartStatus(name="agent")


def crashed(times: int) -> PartStatus:
    status = FRESH
    for _ in range(times):
        status = status.ready().crashed("ended with exit code 1")
    return status


@pytest.mark.parametrize(
    ("crashes", "pause_s"), [(1, 0.25), (2, 0.5), (5, 4.0), (8, 30.0), (9, 30.0), (1_000_000, 30.0)]
)
def test_each_consecutive_crash_doubles_the_pause_up_to_30_s(crashes: int, pause_s: float) -> None:
    assert restart_pause_s(crashes) == pause_s


def test_part_is_down_after_three_consecutive_crashes() -> None:
    states = [crashed(times).state for times in range(1, 5)]
    assert states == [PartState.STARTING, PartState.STARTING, PartState.DOWN, PartState.DOWN]


def test_part_that_is_ready_again_still_counts_as_crashing() -> None:
    again = crashed(3).ready()
    assert (again.state, again.keeps_crashing) == (PartState.READY, True)


def test_minute_of_readiness_resets_the_crash_count() -> None:
    steady = crashed(3).ready().steady()
    assert (steady.keeps_crashing, steady.crashed("again").crashes) == (False, 1)


def test_status_text_has_crashes_and_last_exit() -> None:
    assert str(FRESH.ready()) == "agent: ready"
    assert str(crashed(1)) == "agent: starting, crashed once, ended with exit code 1"
    assert str(crashed(3)) == "agent: down, crashed 3 times in a row, ended with exit code 1"


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [
        (0, "ended with exit code 0"),
        (3, "ended with exit code 3"),
        (-9, "was ended by SIGKILL (exit code -9)"),
    ],
)
def test_exit_code_is_described(exit_code: int, words: str) -> None:
    assert describe_exit(exit_code) == words
