"""Which progress reports are written."""

from decimal import Decimal

import pytest
from relaybox.tasks import should_record_progress


@pytest.mark.guarantee("G43")
@pytest.mark.parametrize("percent", [0, 39, 40])
def test_progress_that_does_not_increase_is_not_written(percent: int) -> None:
    assert not should_record_progress(Decimal(40), Decimal(percent), elapsed_s=60)


def test_milestone_is_written_at_once() -> None:
    assert should_record_progress(Decimal(40), Decimal(45), elapsed_s=0)


def test_small_step_is_written_after_an_interval() -> None:
    assert not should_record_progress(Decimal(40), Decimal(41), elapsed_s=0.1)
    assert should_record_progress(Decimal(40), Decimal(41), elapsed_s=0.25)


def test_frequent_reports_cause_few_writes() -> None:
    last, written = Decimal(0), 0
    for hundredths in range(1, 10_001):
        percent = Decimal(hundredths) / 100
        if should_record_progress(last, percent, elapsed_s=0):
            last, written = percent, written + 1
    assert written == 20
