"""Relaybox's contestant of ``flows.py``, in a process of its own.

* ``steps KIND FLOWS STEPS``: run flows, and print seconds and CPU as JSON. The effect of a step of kind
  ``insert`` is a row, written by the transaction that records the step; a step of kind ``value`` returns a
  value without an effect.
* ``waiting TOPIC``: run flows that wait for an event and insert a row then, with a consumer and a task
  runner in one process, until the process is killed.
"""

import asyncio
import json
import os
import sys
import time
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from relaybox.consumers import Consumer
from relaybox.db import Database, load_queries
from relaybox.flows import Flow, FlowDefinition, flow, flow_subscription, flow_workers, park_flow, start_flow
from relaybox.outbox import Notifier
from relaybox.settings import KafkaSettings, PostgresSettings, TaskSettings, load_settings
from relaybox.tasks import AttemptOutcome, Progress, Task, TaskRunner, Worker
from relaybox.telemetry import configure_logging
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ("APPLICATION", "CONCURRENCY", "EVENT_TYPE", "SQL", "WARM_UP_FLOWS", "waiting_flow")

SQL: Final = load_queries("statements", "flows.sql")
EVENT_TYPE: Final = "Shop.Invoice.Paid"
APPLICATION: Final = "bench-flows"
#: Flows that run at the same time, of each contestant.
CONCURRENCY: Final = 20
#: Connections beyond one for each flow.
_SPARE_CONNECTIONS: Final = 2
#: Flows before the timed ones: they open connections and prepare statements.
WARM_UP_FLOWS: Final = 40
_TIMEOUT: Final = timedelta(hours=1)
_INSERT: Final = text("INSERT INTO bench_flow_effects (flow_id, step) VALUES (:flow_id, :step)")


async def insert(db: AsyncSession, flow_id: UUID, number: int) -> int:
    """Insert the row of one step, and return *number*."""
    await db.execute(_INSERT, {"flow_id": flow_id, "step": number})
    return number


async def give(_db: AsyncSession, _flow_id: UUID, number: int) -> int:
    """Return *number* as the value of one step, without an effect."""
    return number


KINDS: Final = {"insert": insert, "value": give}


def flow_of_steps(kind: str) -> FlowDefinition:
    """Return a flow whose steps are of *kind*: ``insert`` or ``value``."""
    effect = KINDS[kind]

    @flow("Bench.Steps")
    async def steps(current: Flow, arguments: dict[str, Any]) -> None:
        for number in range(arguments["steps"]):
            await current.step(f"step-{number}", lambda db, number=number: effect(db, current.id, number))

    return steps


@flow("Bench.Waiting", event_types=[EVENT_TYPE])
async def waiting_flow(current: Flow, _arguments: dict[str, Any]) -> None:
    """Wait for the event of the flow's key, then insert a row."""
    await current.wait_for(EVENT_TYPE, str(current.id), timeout=_TIMEOUT)
    await current.step("insert", lambda db: insert(db, current.id, 1))


class Completion:
    """Notify a client when its flow has ended."""

    def __init__(self) -> None:
        self._ends: dict[UUID, asyncio.Future[None]] = {}

    def expect(self, flow_id: UUID) -> asyncio.Future[None]:
        """Return the future that is done when the runner has ended the flow."""
        self._ends[flow_id] = asyncio.get_running_loop().create_future()
        return self._ends[flow_id]

    def observing(self, worker: Worker) -> Worker:
        """Return a worker that calls *worker*, then completes the future of the flow."""

        async def work(task: Task, progress: Progress) -> AttemptOutcome | None:
            outcome = await worker(task, progress)
            self._ends.pop(task.id).set_result(None)
            return outcome

        return work


async def run_steps(kind: str, flows: int, steps: int) -> dict[str, float]:
    """Let 20 clients each run one flow after the other; return seconds and CPU seconds of *flows* flows."""
    definition, database, completion = flow_of_steps(kind), database_of(), Completion()
    workers = flow_workers(database, [definition])
    runner = runner_of(database, {name: completion.observing(worker) for name, worker in workers.items()})

    async def client(count: int) -> None:
        for _ in range(count):
            flow_id = uuid4()
            ended = completion.expect(flow_id)
            await database.run_in_transaction(
                lambda db, flow_id=flow_id: start_flow(db, definition, {"steps": steps}, flow_id=flow_id)
            )
            runner.wake()
            await ended

    async with asyncio.TaskGroup() as running:
        running.create_task(runner.run())
        await asyncio.gather(*(client(WARM_UP_FLOWS // CONCURRENCY) for _ in range(CONCURRENCY)))
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        await asyncio.gather(*(client(flows // CONCURRENCY) for _ in range(CONCURRENCY)))
        took = {"seconds": time.perf_counter() - began_s, "cpu_s": time.process_time() - began_cpu_s}
        runner.stop()
    await database.close()
    return took


def database_of() -> Database:
    """Return a database whose pool has a connection for each flow that runs, and two more."""
    pool_size = CONCURRENCY + _SPARE_CONNECTIONS
    settings = load_settings(PostgresSettings).model_copy(update={"pool_size": pool_size})
    return Database(settings, application_name=APPLICATION)


def runner_of(database: Database, workers: dict[str, Worker]) -> TaskRunner:
    """Return a runner for *workers*."""
    return TaskRunner(
        database,
        workers,
        on_exhausted=lambda task: park_flow(database, task),
        settings=TaskSettings(concurrency=CONCURRENCY),
        listens=True,
    )


async def run_waiting(topic: str) -> None:
    """Run the waiting flows until the process is killed."""
    database = database_of()
    notifier = Notifier(database)
    notifier.attach(database.sessions)
    await notifier.start()
    runner = runner_of(database, flow_workers(database, [waiting_flow]))
    consumer = Consumer(
        database, load_settings(KafkaSettings), [flow_subscription([waiting_flow])], topics=[topic]
    )
    await asyncio.gather(runner.run(), consumer.run())


async def main(name: str, *arguments: str) -> None:
    """Run ``steps`` or ``waiting``, as *name* says, with its arguments."""
    configure_logging("bench", os.environ.get("LOG_LEVEL", "WARNING"))
    if name == "waiting":
        await run_waiting(*arguments)
        return
    kind, flows, steps = arguments
    sys.stdout.write(json.dumps(await run_steps(kind, int(flows), int(steps))) + "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
