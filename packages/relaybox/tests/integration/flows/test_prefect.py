"""Runs of a real Prefect server that pause; a driver process calls the server."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from relaybox.db import Database
from relaybox.events import EventBus, fetch_chain
from relaybox.flows import EngineRun, expire_handles, pause_run, resume
from relaybox.local._process import ServerProcess
from relaybox.settings import PostgresSettings
from relaybox.testing import SteppedConsumers, SteppedRelay, make_event, run_in_own_loop

from tests.fixtures.bounds import READY_S
from tests.fixtures.prefect_server import WITHOUT_RETRIES, PrefectServer, prefect_python
from tests.fixtures.processes import server_environment
from tests.fixtures.waiting import eventually
from tests.unit.test_docs import fences

DRIVER = "tests.fixtures.prefect_driver"
PAGE = Path(__file__).parents[5] / "docs/how-to/attach-an-engine.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """Run a Prefect server; a test that stops it must start it again."""
    server = PrefectServer(prefect_python(), tmp_path_factory.mktemp("prefect"))
    run_in_own_loop(server.start())
    yield server
    run_in_own_loop(server.stop())


@pytest.fixture
def environment(relaybox_postgres_settings: PostgresSettings) -> dict[str, str]:
    return server_environment(relaybox_postgres_settings)


class SuspendedRun:
    """A run that Prefect regards as suspended for a pause, without a process of its own."""

    def __init__(self, server: PrefectServer, database: Database) -> None:
        self.server = server
        self.id = ""
        self._database = database

    @property
    def correlation_id(self) -> str:
        return f"{self.id}/approval"

    async def create(self) -> None:
        request = self.server.request
        flow = await request("POST", "/flows/", name="approvals")
        deployment = await request("POST", "/deployments/", name="approvals", flow_id=flow["id"])
        run = await request("POST", f"/deployments/{deployment['id']}/create_flow_run", parameters={})
        self.id = run["id"]
        await self.set_state("PENDING")
        await self.set_state("RUNNING")
        details = {"pause_reschedule": True, "pause_key": f"{self.correlation_id}@1"}
        await self.set_state("PAUSED", name="Suspended", state_details=details)

    async def set_state(self, kind: str, **fields: Any) -> None:
        state = {"type": kind, **fields}
        result = await self.server.request(
            "POST", f"/flow_runs/{self.id}/set_state", state=state, force=False
        )
        assert result["status"] == "ACCEPT", result

    async def pause(self) -> None:
        run = EngineRun(engine="prefect", run_id=self.id, correlation_id=self.correlation_id)
        await self._database.run_in_transaction(lambda db: pause_run(db, run, expires_in=timedelta(hours=1)))
        await self.reaches("PAUSED")

    async def resume(self) -> None:
        await self._database.run_in_transaction(lambda db: resume(db, self.correlation_id, {"yes": True}))

    async def reaches(self, status: str) -> None:
        async def look() -> bool:
            async with self._database.connection() as connection:
                rows = await connection.fetch("SELECT status::text FROM flow_resume_handles")
            return [row["status"] for row in rows] == [status]

        await eventually(f"the pause is {status}", look)

    async def driver_ends(self) -> tuple[str, str | None]:
        """Wait until the driver's task has ended; return its status and the code of its error."""

        async def look() -> tuple[str, str | None] | None:
            async with self._database.connection() as connection:
                [row] = await connection.fetch(
                    "SELECT status::text, error_data ->> 'error_code' AS code FROM async_tasks"
                )
            return (row["status"], row["code"]) if row["status"] in ("COMPLETED", "FAILED") else None

        return await eventually("the driver has ended", look)


@pytest.fixture
async def run(server: PrefectServer, relaybox_database: Database) -> SuspendedRun:
    run = SuspendedRun(server, relaybox_database)
    await run.create()
    return run


@pytest.fixture
def driver(server: PrefectServer, environment: dict[str, str]) -> Any:
    """``async with driver():`` runs a driver; ``driver("before")`` one that kills itself before a resume."""

    def start(*point: str) -> AbstractAsyncContextManager[ServerProcess]:
        return server.program("-m", DRIVER, *point, environment=environment | WITHOUT_RETRIES)

    return start


@pytest.mark.guarantee("G44")
@pytest.mark.parametrize("point", ["before", "after"])
async def test_driver_killed_at_its_call_resumes_the_run_once(
    run: SuspendedRun, driver: Any, point: str
) -> None:
    async with driver(point) as process:
        await run.pause()
        await run.resume()
        assert await process.wait() == -signal.SIGKILL
    assert ("Resuming" in await run.server.states_of(run.id)) is (point == "after")
    async with driver():
        assert await run.driver_ends() == ("COMPLETED", None)
    assert (await run.server.states_of(run.id)).count("Resuming") == 1


@pytest.mark.parametrize(("how", "code"), [("cancelled", "FLOW_RUN_ENDED"), ("deleted", "FLOW_RUN_UNKNOWN")])
async def test_resume_of_a_lost_run_parks_the_driver(
    run: SuspendedRun, driver: Any, how: str, code: str
) -> None:
    async with driver():
        await run.pause()
        if how == "deleted":
            await run.server.request("DELETE", f"/flow_runs/{run.id}")
        else:
            await run.set_state("CANCELLED")
        await run.resume()
        assert await run.driver_ends() == ("FAILED", code)


async def test_expired_pause_cancels_its_run_in_prefect(
    run: SuspendedRun, driver: Any, relaybox_database: Database
) -> None:
    async with driver():
        await run.pause()
        async with relaybox_database.connection() as connection:
            await connection.fetch("UPDATE flow_resume_handles SET expires_at = now()")
        await relaybox_database.run_in_transaction(expire_handles)
        assert await run.driver_ends() == ("COMPLETED", None)
    assert await run.server.state_of(run.id) == "Cancelled"


@pytest.mark.guarantee("G44")
async def test_run_of_the_page_survives_a_restart_and_finishes(
    server: PrefectServer,
    environment: dict[str, str],
    relaybox_database: Database,
    relaybox_relay: SteppedRelay,
    relaybox_consumer: SteppedConsumers,
) -> None:
    order, engine, handler, *_ = fences(PAGE, "python")
    for name, text in (("order", order), ("engine", engine)):
        await asyncio.to_thread((server.data_dir / f"{name}.py").write_text, text)
    names: dict[str, Any] = {}
    exec(compile(handler, "page", "exec", dont_inherit=True), names)
    payments = relaybox_consumer(names["continue_order"])
    async with server.program("engine.py", environment=environment | WITHOUT_RETRIES):
        async with server.program("order.py", environment=environment):
            run_id = await start_order(server)
            await paused(relaybox_database, run_id)
        await server.stop()
        await pay(relaybox_database, run_id)
        await relaybox_relay.publish_all()
        await payments.drain()
        await eventually("the server is missed", lambda: logged(server, "flow engine unavailable"))
        await server.start()
        async with server.program("order.py", environment=environment):
            await eventually("the run has finished", lambda: finished(server, run_id), READY_S)
    log = await log_of(server)
    lines = [line for line in log.splitlines() if line.startswith(("reserved", "shipped"))]
    assert lines == ["reserved 7", "shipped R-7 300"]
    states = await server.states_of(run_id)
    assert states.count("Suspended") == states.count("Resuming") == 1
    async with relaybox_database.connection() as connection:
        chain = await fetch_chain(connection, UUID(run_id))
    assert [event.type.rpartition(".")[2] for event in chain] == [
        *("PauseRequested", "Paused"),
        *("Paid", "Resumed"),
    ]


async def log_of(server: PrefectServer) -> str:
    return await asyncio.to_thread((server.data_dir / "program.log").read_text)


async def logged(server: PrefectServer, text: str) -> bool:
    return text in await log_of(server)


async def start_order(server: PrefectServer) -> str:
    """Start a run as soon as the flow is deployed, and return its id."""

    async def deployed() -> dict[str, Any] | None:
        found = await server.request("POST", "/deployments/filter")
        return next((each for each in found if each["name"] == "orders"), None)

    deployment = await eventually("the flow is deployed", deployed, READY_S)
    path = f"/deployments/{deployment['id']}/create_flow_run"
    return (await server.request("POST", path, parameters={"order_id": "7"}))["id"]


async def paused(database: Database, run_id: str) -> None:
    async def look() -> bool:
        async with database.connection() as connection:
            rows = await connection.fetch(
                "SELECT FROM flow_resume_handles WHERE correlation_id = $1 AND status = 'PAUSED'",
                f"{run_id}/payment",
            )
        return bool(rows)

    await eventually("the run is paused", look, READY_S)


async def pay(database: Database, run_id: str) -> None:
    """Publish the event of the payment, in the chain of the run."""
    event = make_event(
        "Shop.Order.Paid", {"run_id": run_id, "cents": 300}, aggregate_id="7", correlation_id=UUID(run_id)
    )
    await database.run_in_transaction(lambda db: EventBus(db).publish(event))


async def finished(server: PrefectServer, run_id: str) -> bool:
    state = await server.state_of(run_id)
    assert state not in ("Failed", "Crashed", "Cancelled"), state
    return state == "Completed"
