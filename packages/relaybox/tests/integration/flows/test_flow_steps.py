"""Steps of flows: one call per attempt, no effect after an error or while the flow waits."""

from typing import Any

import pytest
from relaybox.db import Database
from relaybox.flows import Flow, flow
from relaybox.tasks import TaskSignal
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.flow_engine import Runner, effect, effects_of, started, until_status
from tests.fixtures.signal_recorder import SignalRecorder

pytestmark = pytest.mark.usefixtures("effects")


@pytest.mark.guarantee("G44")
async def test_step_longer_than_a_lease_renewal_is_called_once(database: Database, run_flows: Runner) -> None:
    runners: list[SignalRecorder] = []
    calls: list[str] = []

    async def slow(db: AsyncSession) -> str:
        calls.append("slow")
        done = await effect(db, "slow")
        for _ in range(2):
            await runners[0].wait_for_next(TaskSignal.RENEWED)
        return done

    @flow("Test.Slow")
    async def definition(current: Flow, _arguments: dict[str, Any]) -> dict[str, Any]:
        return {"slow": await current.step("slow", slow)}

    flow_id = await started(database, definition)
    async with run_flows(definition, lease_s=2.0) as signals:
        runners.append(signals)
        assert await until_status(database, flow_id, "COMPLETED") == {"slow": "SLOW"}
    assert (calls, await effects_of(database)) == (["slow"], ["slow"])
