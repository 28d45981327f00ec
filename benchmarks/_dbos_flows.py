"""Run flows of steps with DBOS; started with the Python of the peers' environment.

The flows are those of ``_flowing.py steps``. As DBOS's documentation recommends, workflows are async, and a
step that writes to PostgreSQL is a transaction of a datasource, which commits the effect with a record of the
step. A step without an effect is a ``DBOS.step``. A step of kind ``at_least_once`` is a ``DBOS.step`` that
inserts on a connection of its own; DBOS records this step afterwards. DBOS runs a workflow at once in the
process that starts it. DBOS's pools have a connection for each workflow that runs. Steps write no log lines.
"""

import asyncio
import json
import os
import sys
import time
import uuid

from dbos import DBOS, AsyncSQLAlchemyDatasource, DBOSConfig, SetWorkflowID
from sqlalchemy import text

_, KIND, FLOWS, STEPS, CONCURRENCY, WARM_UP_FLOWS = sys.argv
CLIENTS = int(CONCURRENCY)
INSERT = text("INSERT INTO bench_flow_effects (flow_id, step) VALUES (:flow_id, :step)")


async def run() -> dict[str, float]:
    """Let each client run one workflow after the other; return time and CPU seconds, without the warm-up."""
    source = await AsyncSQLAlchemyDatasource.create(
        os.environ["PEER_DATABASE"], {"pool_size": CLIENTS, "max_overflow": 2}
    )

    @source.transaction(isolation_level="REPEATABLE READ")
    async def insert(flow_id: str, number: int) -> int:
        await source.sql_session().execute(INSERT, {"flow_id": flow_id, "step": number})
        return number

    @DBOS.step()
    async def at_least_once(flow_id: str, number: int) -> int:
        async with source.engine.begin() as connection:
            await connection.execute(INSERT, {"flow_id": flow_id, "step": number})
        return number

    @DBOS.step()
    async def value(_flow_id: str, number: int) -> int:
        return number

    step = {"insert": insert, "at_least_once": at_least_once, "value": value}[KIND]

    @DBOS.workflow()
    async def steps(flow_id: str, count: int) -> None:
        for number in range(count):
            await step(flow_id, number)

    async def client(count: int) -> None:
        for _ in range(count):
            flow_id = str(uuid.uuid4())
            with SetWorkflowID(flow_id):
                await steps(flow_id, int(STEPS))

    DBOS.launch()
    await asyncio.gather(*(client(int(WARM_UP_FLOWS) // CLIENTS) for _ in range(CLIENTS)))
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client(int(FLOWS) // CLIENTS) for _ in range(CLIENTS)))
    return {"seconds": time.perf_counter() - began_s, "cpu_s": time.process_time() - began_cpu_s}


async def main() -> None:
    """Configure DBOS, run the workflows, and print the figures as JSON."""
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": os.environ["PEER_DATABASE"],
        "sys_db_pool_size": CLIENTS + 2,
        "log_level": "WARNING",
        "enable_otlp": False,
    }
    DBOS(config=config)
    took = await run()
    DBOS.destroy()
    sys.stdout.write(json.dumps(took) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
