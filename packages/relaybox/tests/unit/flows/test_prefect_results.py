"""What Prefect responds is not repeated in errors, because it may quote the input of a run."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from relaybox.flows import EngineRun, FlowRunError, FlowRunRunning, prefect

RUN = EngineRun(
    engine="prefect",
    run_id="6c1f1c1e-0000-4000-8000-000000000000",
    correlation_id="6c1f1c1e-0000-4000-8000-000000000000/payment",
)
PRIVATE = "validation of the input failed: IBAN DE02 1203 0000"


class Client:
    """A client of Prefect whose run is suspended, and which gives *status* to a resume."""

    def __init__(self, status: str) -> None:
        self._result = SimpleNamespace(
            status=SimpleNamespace(value=status), details=SimpleNamespace(reason=PRIVATE)
        )

    async def read_flow_run(self, _run_id: Any) -> Any:
        details = SimpleNamespace(pause_key=f"{RUN.correlation_id}@1")
        return SimpleNamespace(state=SimpleNamespace(state_details=details, is_paused=lambda: True))

    async def resume_flow_run(self, _run_id: Any, *, run_input: Mapping[str, Any]) -> Any:
        _ = run_input
        return self._result


@pytest.mark.parametrize(("status", "error"), [("REJECT", FlowRunError), ("ABORT", FlowRunRunning)])
async def test_reason_of_prefect_is_left_out_of_errors(
    monkeypatch: pytest.MonkeyPatch, status: str, error: type[Exception]
) -> None:
    @asynccontextmanager
    async def client(_run: EngineRun) -> AsyncIterator[Client]:
        yield Client(status)

    monkeypatch.setattr(prefect, "_client", client)
    engine = object.__new__(prefect.PrefectEngine)
    with pytest.raises(error) as raised:
        await engine.resume(RUN, {"iban": "DE02 1203 0000"})
    assert "IBAN" not in str(raised.value)
    assert RUN.run_id in str(raised.value)
