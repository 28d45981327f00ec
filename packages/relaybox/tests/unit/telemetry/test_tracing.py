"""Trace context is passed on without an SDK."""

import pytest
from relaybox.telemetry import continue_trace, current_traceparent

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-00"


def test_traceparent_is_absent_outside_of_a_trace() -> None:
    assert current_traceparent() is None


def test_trace_of_the_caller_is_passed_on_until_its_block_ends() -> None:
    with continue_trace(PARENT):
        assert current_traceparent() == PARENT
    assert current_traceparent() is None


def test_running_trace_is_kept() -> None:
    with continue_trace(PARENT), continue_trace(OTHER):
        assert current_traceparent() == PARENT


@pytest.mark.parametrize("nonsense", [None, "", "00-zz", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_malformed_traceparent_is_ignored(nonsense: str | None) -> None:
    with continue_trace(nonsense):
        assert current_traceparent() is None
