"""What follows a failed attempt."""

import pytest
from relaybox.consumers import GiveUp, Retry, WaitForDatabase, decide_after_failure
from relaybox.db import DatabaseBusy, DatabaseUnavailable, RetryTransaction


def test_failed_handler_is_retried_after_1_2_and_4_seconds() -> None:
    steps = [
        decide_after_failure(RuntimeError(), failures=failures, database_failures=0)
        for failures in range(1, 5)
    ]
    assert steps == [Retry(pause_s=1), Retry(pause_s=2), Retry(pause_s=4), GiveUp()]


@pytest.mark.parametrize("error", [DatabaseUnavailable, DatabaseBusy, RetryTransaction])
def test_database_errors_are_retried_without_limit_in_bounded_pauses(error: type[Exception]) -> None:
    steps = [
        decide_after_failure(error(), failures=3, database_failures=times)
        for times in (1, 2, 3, 6, 7, 10_000)
    ]
    assert steps == [WaitForDatabase(pause_s=pause_s) for pause_s in (0.1, 0.2, 0.4, 3.2, 5, 5)]
