"""Flows end as a model in plain Python does, whatever the order of events, resumes and kills."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from relaybox.db import Database
from relaybox.flows import (
    FlowAlreadyResumed,
    FlowCancelled,
    FlowError,
    FlowExpired,
    FlowUnknown,
    cancel,
    cancel_flow,
    expire_handles,
    flow_workers,
    resume,
    start_flow,
)
from relaybox.operations import SelectionEmpty, TaskSelection, retry_tasks
from relaybox.settings import PostgresSettings

from tests.fixtures.dying_flows import EFFECTS, STEPS, WAITS, end_leases, modelled, run_and_die, run_due
from tests.fixtures.flow_engine import deliver, status_of
from tests.fixtures.forked import exit_code_of

T = TypeVar("T")
NAMES = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(0, 3)
RULES = 50
EXAMPLES = 4
#: More statements than three flows that begin need; a runner that wakes a single flow needs about ten.
STATEMENTS_MAX = 60
STATEMENTS = st.integers(1, 10) | st.integers(1, STATEMENTS_MAX)
Outcome = str | type[FlowError]


class Model:
    """One flow, as the documentation describes it."""

    def __init__(self) -> None:
        self.status = "PENDING"
        self.effects: list[str] = []
        self.results: dict[str, Any] = {}
        self.is_broken = False
        self._position = 0
        #: Events that no wait has got, in the order of their arrival.
        self._events: list[int] = []
        #: Whether the pause of the wait at this position was requested, and has not ended.
        self._waits = False
        #: Whether the time of this pause is over, and whether the expiry has recorded this.
        self._over = self._expired = False
        #: What has ended the wait that comes next or is open: the event, or the payload of the resume.
        self._event: int | None = None
        self._resume: int | None = None
        #: How the wait for a resume has ended; None before.
        self._approval: Outcome | None = None

    @property
    def _step(self) -> str:
        return STEPS[self._position]

    @property
    def _awaits_resume(self) -> bool:
        return self._waits and self._step == "approval"

    def run(self) -> None:
        """Go on until the flow waits, fails or ends."""
        while self.status == "PENDING" and self._position < len(STEPS):
            if self._step in EFFECTS:
                if self.is_broken:
                    self.status = "FAILED"
                    return
                self.effects.append(self._step)
            elif not self._ended_wait():
                self._waits = True
                return
            self._position += 1
        if self.status == "PENDING":
            self.status = "COMPLETED"

    def _ended_wait(self) -> bool:
        """Return whether the wait at this position has ended, and record its result if it has."""
        if self._step == "approval":
            if self._approval is None and self._over:
                self._approval = FlowExpired
            elif self._approval is None and self._resume is not None:
                self._approval = FlowAlreadyResumed
            if self._approval is None:
                return False
            ends = {FlowAlreadyResumed: self._resume, FlowExpired: "expired", FlowCancelled: "cancelled"}
            self.results[self._step] = ends[self._approval]
        else:
            if self._event is None and not self._over and self._events:
                self._event = self._events.pop(0)
            if self._event is None and not self._over:
                return False
            self.results[self._step] = "expired" if self._event is None else self._event
        self._waits = self._over = self._expired = False
        self._event = None
        return True

    def event(self, number: int) -> None:
        """Let an event arrive."""
        is_open = self._waits and self._step in WAITS and self._event is None and not self._over
        if is_open:
            self._event = number
        else:
            self._events.append(number)

    def resume(self, number: int) -> Outcome:
        """Resume the wait for a resume, or keep the resume for it."""
        if self._approval is not None:
            return self._approval
        if self._awaits_resume and self._over:
            return FlowExpired
        if self._resume is not None:
            return FlowAlreadyResumed
        self._resume = number
        if not self._awaits_resume:
            return "PENDING_PAUSE"
        self._approval = FlowAlreadyResumed
        return "RESUMED"

    def cancel_pause(self) -> Outcome:
        """Cancel the wait for a resume."""
        if self._approval is not None:
            return self._approval
        if not self._awaits_resume:
            return FlowUnknown
        if self._over:
            return FlowExpired
        self._approval = FlowCancelled
        return "EXPIRED"

    def cancel(self) -> bool:
        """Cancel the flow; return whether it was open."""
        if self.status != "PENDING":
            return False
        if not self._over:
            if self._awaits_resume and self._approval is None:
                self._approval = FlowCancelled
            self._waits = False
        self.status = "CANCELLED"
        return True

    @property
    def _can_expire(self) -> bool:
        ended = self._approval if self._step == "approval" else self._event
        return self._waits and ended is None

    def pass_time(self) -> None:
        """Let the time of the open wait be over."""
        if self._position < len(STEPS) and self._can_expire:
            self._over = True

    def expire(self) -> int:
        """Record that the time of the wait is over; return the number of waits to which this applies."""
        if self._position == len(STEPS) or not self._can_expire or not self._over or self._expired:
            return 0
        self._expired = True
        return 1

    def retry(self) -> bool:
        """Let a FAILED flow go on; return whether it was FAILED."""
        was_failed = self.status == "FAILED"
        if was_failed:
            self.status = "PENDING"
        return was_failed


class Machine(RuleBasedStateMachine):
    """Call the library and the model, and compare."""

    database: Database
    postgres: PostgresSettings
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self._flows = {name: (uuid4(), Model()) for name in ("a", "b", "c")}

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def start(self) -> None:
        for flow_id, _ in self._flows.values():
            self._do(self._start(flow_id))

    async def _start(self, flow_id: UUID) -> None:
        await self.database.run_in_transaction(
            lambda db: start_flow(db, modelled, {"key": str(flow_id)}, flow_id=flow_id)
        )

    @rule(name=NAMES)
    def starts_again(self, name: str) -> None:
        self._do(self._start(self._flows[name][0]))

    @rule()
    def runs(self) -> None:
        self._do(self._run())
        for flow_id, model in self._flows.values():
            model.run()
            assert self._do(self._found(flow_id)) == (
                model.status,
                model.results if model.status == "COMPLETED" else None,
                model.effects,
            )

    async def _run(self) -> None:
        while await run_due(self.database, flow_workers(self.database, [modelled])):
            await end_leases(self.database)

    async def _found(self, flow_id: UUID) -> tuple[str, dict[str, Any] | None, list[str]]:
        status, result = await status_of(self.database, flow_id)
        rows = await self._fetch("SELECT name FROM effects WHERE flow = $1 ORDER BY ctid", flow_id)
        return status, result, [row["name"] for row in rows]

    @rule(number=STATEMENTS, name=NAMES, between=st.sampled_from(["", "event", "resume"]))
    def is_killed_then_runs(self, number: int, name: str, between: str) -> None:
        """Kill the runner before a statement; an event or a resume comes before the next runner."""
        code = exit_code_of(run_and_die, self.postgres, number)
        assert code in (0, -signal.SIGKILL)
        if between == "event":
            self.gets_event(name, number)
        elif between == "resume":
            self.is_resumed(name, number, was_killed=True)
        self._do(end_leases(self.database))
        self.runs()

    @rule(name=NAMES, number=NUMBERS)
    def gets_event(self, name: str, number: int) -> None:
        flow_id, model = self._flows[name]
        model.event(number)
        self._do(deliver(self.database, modelled, str(flow_id), number))

    @rule(name=NAMES, number=NUMBERS)
    def is_resumed(self, name: str, number: int, *, was_killed: bool = False) -> None:
        flow_id, model = self._flows[name]
        found, wanted = self._outcome(resume, flow_id, {"n": number}), model.resume(number)
        # The killed runner may have come to the wait or not.
        kept = ("PENDING_PAUSE", "RESUMED")
        assert found == wanted or (was_killed and found in kept and wanted in kept)

    @rule(name=NAMES)
    def wait_is_cancelled(self, name: str) -> None:
        flow_id, model = self._flows[name]
        assert self._outcome(cancel, flow_id) == model.cancel_pause()

    def _outcome(self, transition: Any, flow_id: UUID, *arguments: Any) -> Outcome:
        async def work() -> str:
            handle = await self.database.run_in_transaction(
                lambda db: transition(db, f"{flow_id}/approval", *arguments)
            )
            return handle.status.value

        try:
            return self._do(work())
        except FlowError as error:
            return type(error)

    @rule(name=NAMES)
    def is_cancelled(self, name: str) -> None:
        flow_id, model = self._flows[name]
        done = self._do(self.database.run_in_transaction(lambda db: cancel_flow(db, flow_id)))
        assert (done is not None) == model.cancel()

    @rule(name=NAMES)
    def time_passes(self, name: str) -> None:
        flow_id, model = self._flows[name]
        model.pass_time()
        self._do(self._pass_time(flow_id))

    async def _pass_time(self, flow_id: UUID) -> None:
        await self._fetch(
            "UPDATE flow_resume_handles SET expires_at = now() - interval '1 s'"
            " WHERE chain_id = $1 AND registered AND status IN ('PENDING_PAUSE', 'PAUSED')",
            flow_id,
        )
        await self._fetch(
            "UPDATE async_tasks SET not_before = now() - interval '1 s'"
            " WHERE id = $1 AND not_before IS NOT NULL",
            flow_id,
        )

    @rule()
    def waits_expire(self) -> None:
        expired = self._do(self.database.run_in_transaction(expire_handles))
        assert len(expired) == sum(model.expire() for _, model in self._flows.values())

    @rule(name=NAMES, is_broken=st.booleans())
    def steps_break(self, name: str, is_broken: bool) -> None:
        """Let the steps of the flow fail from now on, or succeed again."""
        flow_id, model = self._flows[name]
        model.is_broken = is_broken
        self._do(self._fetch("DELETE FROM broken WHERE flow = $1", flow_id))
        if is_broken:
            self._do(self._fetch("INSERT INTO broken VALUES ($1)", flow_id))

    @rule(name=NAMES)
    def is_retried(self, name: str) -> None:
        flow_id, model = self._flows[name]
        try:
            self._do(retry_tasks(self.database, TaskSelection(ids=[flow_id]), by="ann"))
        except SelectionEmpty:
            assert not model.retry()
        else:
            assert model.retry()

    def teardown(self) -> None:
        self.runs()
        self._do(self._check_and_forget())

    async def _check_and_forget(self) -> None:
        """Check that no pause ended twice; delete all flows, so that the next example has only its own."""
        several = await self._fetch(
            "SELECT aggregate_id FROM domain_events WHERE event_type ~ '(Resumed|Expired|Cancelled)$'"
            " GROUP BY aggregate_id HAVING count(*) > 1"
        )
        assert several == []
        for table in ("flow_resume_handles", "async_tasks", "effects", "broken"):
            await self._fetch(f"DELETE FROM {table}")

    async def _fetch(self, query: str, *arguments: Any) -> Any:
        async with self.database.connection() as connection:
            return await connection.fetch(query, *arguments)


def compare(postgres: PostgresSettings, examples: int) -> None:
    with asyncio.Runner() as runner:
        Machine.runner, Machine.postgres = runner, postgres
        Machine.database = Database(postgres, application_name="test")
        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(max_examples=examples, stateful_step_count=RULES, deadline=None),
            )
        finally:
            runner.run(Machine.database.close())


@pytest.fixture
async def tables(superuser: Any) -> None:
    await superuser.execute("CREATE TABLE effects (flow UUID, name TEXT)")
    await superuser.execute("CREATE TABLE broken (flow UUID)")
    await superuser.execute("GRANT ALL ON effects, broken TO PUBLIC")


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("number", "code"), [(1, -signal.SIGKILL), (10, -signal.SIGKILL), (STATEMENTS_MAX, 0)]
)
async def test_model_kills_the_runner_before_a_statement_that_it_reaches(
    database: Database, postgres_settings: PostgresSettings, number: int, code: int
) -> None:
    flow_id = uuid4()
    await database.run_in_transaction(
        lambda db: start_flow(db, modelled, {"key": str(flow_id)}, flow_id=flow_id)
    )
    assert await asyncio.to_thread(exit_code_of, run_and_die, postgres_settings, number) == code


@pytest.mark.usefixtures("tables")
@pytest.mark.guarantee("G44")
def test_flows_behave_as_the_model(postgres_settings: PostgresSettings) -> None:
    compare(postgres_settings, EXAMPLES)


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.usefixtures("tables")
@pytest.mark.guarantee("G44")
def test_flows_behave_as_the_model_for_5000_steps(postgres_settings: PostgresSettings) -> None:
    compare(postgres_settings, 5_000 // RULES)
