"""When a crashed part is started again, decided without a process."""

import pytest
from relaybox.local._parts import describe_exit
from relaybox.local._supervisor import restart_pause_s


@pytest.mark.parametrize(
    ("crashes", "pause_s"),
    [([100.0], 0.25), ([99.0, 100.0], 0.5), ([96.0, 97.0, 98.0, 99.0, 100.0], 4.0)],
)
def test_each_crash_doubles_the_pause(crashes: list[float], pause_s: float) -> None:
    assert restart_pause_s(crashes, now=100.0) == pause_s


def test_the_sixth_crash_within_a_minute_is_the_last() -> None:
    assert restart_pause_s([50.0, 60.0, 70.0, 80.0, 90.0, 100.0], now=100.0) is None


def test_crashes_older_than_a_minute_are_forgotten() -> None:
    assert restart_pause_s([1.0, 2.0, 3.0, 4.0, 5.0, 100.0], now=100.0) == 0.25


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [
        (0, "ended with exit code 0"),
        (3, "ended with exit code 3"),
        (-9, "was ended by SIGKILL (exit code -9)"),
    ],
)
def test_an_exit_is_told_in_words(exit_code: int, words: str) -> None:
    assert describe_exit(exit_code) == words
