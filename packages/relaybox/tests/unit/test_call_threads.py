"""When a call to Kafka counts as hung (G26)."""

import threading

import pytest
from relaybox.kafka import CallThreads


def test_only_calls_that_run_count_as_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaybox.kafka._HUNG_S", -1.0)
    began, may_end = threading.Event(), threading.Event()

    def call() -> str:
        began.set()
        may_end.wait()
        return "done"

    with CallThreads(1, "test") as threads:
        assert not threads.hung()
        running = threads.submit(call)
        began.wait()
        assert threads.hung()
        may_end.set()
        assert running.result() == "done"
        with pytest.raises(ZeroDivisionError):
            threads.submit(divmod, 1, 0).result()
    assert not threads.hung()
