"""Trace context travels through without an SDK."""

import pytest
from relaybox.telemetry import continue_trace, current_traceparent

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-00"


def test_outside_of_a_trace_there_is_no_traceparent() -> None:
    assert current_traceparent() is None


def test_the_callers_trace_is_handed_on_and_ends_with_its_block() -> None:
    with continue_trace(PARENT):
        assert current_traceparent() == PARENT
    assert current_traceparent() is None


def test_a_trace_that_runs_already_is_kept() -> None:
    with continue_trace(PARENT), continue_trace(OTHER):
        assert current_traceparent() == PARENT


@pytest.mark.parametrize("nonsense", [None, "", "00-zz", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_malformed_traceparent_is_ignored(nonsense: str | None) -> None:
    with continue_trace(nonsense):
        assert current_traceparent() is None
