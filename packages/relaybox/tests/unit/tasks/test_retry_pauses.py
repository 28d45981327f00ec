"""The pause of a task after a failed attempt."""

from relaybox.tasks import retry_pause_s


def test_pause_doubles_from_one_second_up_to_a_bound() -> None:
    assert [retry_pause_s(attempts) for attempts in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
