"""Handles behave as a model in plain Python does, whatever the order of the calls."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from relaybox.db import Database
from relaybox.flows import (
    FlowAlreadyPaused,
    FlowAlreadyResumed,
    FlowCancelled,
    FlowError,
    FlowExpired,
    FlowUnknown,
    Handle,
    cancel,
    confirm_paused,
    expire_handles,
    fetch_handle,
    pause,
    resume,
)
from relaybox.settings import PostgresSettings

T = TypeVar("T")
FLOWS = st.sampled_from(["a", "b"])
STEPS = 50
EXAMPLES = 8
Outcome = tuple[str, bool, dict[str, Any] | None] | type[FlowError]


@dataclass
class Pause:
    """The last pause of a flow, in the model."""

    status: str = "PENDING_PAUSE"
    registered: bool = True
    payload: dict[str, Any] | None = None
    cancelled: bool = False
    over: bool = False

    @property
    def waits(self) -> bool:
        return self.status in ("PENDING_PAUSE", "PAUSED")

    @property
    def obstacle(self) -> type[FlowError] | None:
        """Return why the pause accepts no transition; None while it waits."""
        if self.cancelled:
            return FlowCancelled
        if self.status == "EXPIRED" or (self.waits and self.over):
            return FlowExpired
        return FlowAlreadyResumed if self.status == "RESUMED" else None

    @property
    def outcome(self) -> Outcome:
        return self.status, self.cancelled, self.payload


class Model:
    """The pauses of each flow, as the documentation describes them."""

    def __init__(self) -> None:
        self.last: dict[str, Pause] = {}

    def pause(self, flow: str) -> Outcome:
        last = self.last.get(flow)
        if last is not None and last.waits and not last.registered:
            last.registered, last.over = True, False
        elif last is not None and last.waits and not last.over:
            return FlowAlreadyPaused
        else:
            last = self.last[flow] = Pause()
        return last.outcome

    def confirm(self, flow: str) -> Outcome:
        last = self.last.get(flow)
        if last is None or not last.registered:
            return FlowUnknown
        if (obstacle := last.obstacle) is not None:
            return obstacle
        last.status = "PAUSED" if last.payload is None else "RESUMED"
        return last.outcome

    def resume(self, flow: str, payload: dict[str, Any]) -> Outcome:
        last = self.last.setdefault(flow, Pause(registered=False))
        if (obstacle := last.obstacle) is not None:
            return obstacle
        if last.payload is not None:
            return FlowAlreadyResumed
        last.payload = payload
        if last.status == "PAUSED":
            last.status = "RESUMED"
        return last.outcome

    def cancel(self, flow: str) -> Outcome:
        last = self.last.get(flow)
        if last is None or not last.registered:
            return FlowUnknown
        if (obstacle := last.obstacle) is not None:
            return obstacle
        last.status, last.cancelled = "EXPIRED", True
        return last.outcome

    def expire(self) -> int:
        due = [one for one in self.last.values() if one.waits and one.over]
        for one in due:
            one.status = "EXPIRED"
        return len(due)


class Machine(RuleBasedStateMachine):
    """Call the library and the model, and compare."""

    database: Database
    runner: asyncio.Runner
    example = 0

    def __init__(self) -> None:
        super().__init__()
        Machine.example += 1
        self._model = Model()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def _name(self, flow: str) -> str:
        return f"{Machine.example}/{flow}"

    def _outcome(self, step: Any, flow: str, *args: Any, **kwargs: Any) -> Outcome:
        async def call() -> Handle:
            return await self.database.run_in_transaction(
                lambda db: step(db, self._name(flow), *args, **kwargs)
            )

        try:
            handle = self._run(call())
        except FlowError as error:
            return type(error)
        return handle.status.value, handle.cancelled, handle.resume_payload

    @rule(flow=FLOWS)
    def pauses(self, flow: str) -> None:
        done = self._outcome(pause, flow, resume_handle={}, expires_in=timedelta(hours=1))
        assert done == self._model.pause(flow)

    @rule(flow=FLOWS)
    def confirms(self, flow: str) -> None:
        assert self._outcome(confirm_paused, flow) == self._model.confirm(flow)

    @rule(flow=FLOWS, number=st.integers(0, 3))
    def resumes(self, flow: str, number: int) -> None:
        assert self._outcome(resume, flow, {"n": number}) == self._model.resume(flow, {"n": number})

    @rule(flow=FLOWS)
    def cancels(self, flow: str) -> None:
        assert self._outcome(cancel, flow) == self._model.cancel(flow)

    @rule(flow=FLOWS)
    def time_passes(self, flow: str) -> None:
        async def pass_time() -> None:
            async with self.database.connection() as connection:
                await connection.fetch(
                    "UPDATE flow_resume_handles SET expires_at = now() - interval '1 s' "
                    "WHERE correlation_id = $1 AND status IN ('PENDING_PAUSE', 'PAUSED')",
                    self._name(flow),
                )

        self._run(pass_time())
        if (last := self._model.last.get(flow)) is not None and last.waits:
            last.over = True

    @rule()
    def expires(self) -> None:
        async def expire() -> int:
            return len(await self.database.run_in_transaction(expire_handles))

        assert self._run(expire()) == self._model.expire()

    def teardown(self) -> None:
        for flow, wanted in self._model.last.items():
            found = self._run(self._last(flow))
            assert found is not None
            status = "EXPIRED" if wanted.waits and wanted.over else wanted.status
            assert (found.status, found.resume_payload) == (status, wanted.payload)
        self._run(self._forget())

    async def _last(self, flow: str) -> Handle | None:
        async with self.database.connection() as connection:
            return await fetch_handle(connection, self._name(flow))

    async def _forget(self) -> None:
        """Delete the handles, so that the next example expires only its own."""
        async with self.database.connection() as connection:
            await connection.fetch("DELETE FROM flow_resume_handles")


def compare(postgres: PostgresSettings, examples: int) -> None:
    with asyncio.Runner() as runner:
        Machine.runner, Machine.database = runner, Database(postgres, application_name="test")
        try:
            run_state_machine_as_test(
                Machine, settings=settings(max_examples=examples, stateful_step_count=STEPS, deadline=None)
            )
        finally:
            runner.run(Machine.database.close())


@pytest.mark.guarantee("G44")
def test_handles_behave_as_the_model(postgres_settings: PostgresSettings) -> None:
    compare(postgres_settings, EXAMPLES)


@pytest.mark.long
@pytest.mark.guarantee("G44")
def test_handles_behave_as_the_model_for_5000_steps(postgres_settings: PostgresSettings) -> None:
    compare(postgres_settings, 5_000 // STEPS)
