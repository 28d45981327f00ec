"""Consumer and task runner processes that are killed or stopped."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from uuid import uuid4

import pytest
from relaybox.consumers import Consumer, ConsumerSignal, subscribe
from relaybox.db import Database
from relaybox.settings import KafkaSettings, PostgresSettings, TaskSettings
from relaybox.tasks import Progress, Task, TaskRunner, TaskSignal, complete_task

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.events import REQUESTED, effects, make_effects_table, make_event, publish, record_effect
from tests.fixtures.groups import committed_offsets
from tests.fixtures.processes import PythonProcess, python_process, server_environment
from tests.fixtures.signal_recorder import SignalRecorder
from tests.fixtures.task_rows import TASK_TYPE, add_task, task_row
from tests.fixtures.waiting import eventually

StartProcess = Callable[..., AbstractAsyncContextManager[PythonProcess]]


@pytest.fixture
def group() -> str:
    return f"group-{uuid4().hex[:8]}"


@pytest.fixture
async def consumer_process(
    postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str, group: str
) -> StartProcess:
    """``async with consumer_process(moment_to_die_at) as process``."""
    await make_effects_table(postgres_settings)
    environment = server_environment(postgres_settings, kafka_settings)

    def start(*die_at: ConsumerSignal) -> AbstractAsyncContextManager[PythonProcess]:
        module = "tests.fixtures.consumer_process"
        return python_process(module, group, topic, *die_at, environment=environment)

    return start


@pytest.mark.guarantee("G40")
@pytest.mark.parametrize("offset_committed", [False, True])
async def test_consumer_killed_after_its_effect_has_one_effect(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    group: str,
    consumer_process: StartProcess,
    offset_committed: bool,
) -> None:
    """A consumer killed before its offset commit receives the event again; one killed after does not."""
    first, second = make_event(aggregate_id="a"), make_event(aggregate_id="a", version=2)
    die_at = [] if offset_committed else [ConsumerSignal.COMMITTED]
    async with consumer_process(*die_at) as process:
        publish(kafka_settings, topic, [first])
        if offset_committed:

            async def committed() -> bool:
                return await asyncio.to_thread(committed_offsets, kafka_settings, topic, group) == 1

            await eventually("the group has committed the event's offset", committed)
            process.signal(signal.SIGKILL)
        assert await process.exit_code() == -signal.SIGKILL
    assert await effects(database) == [first.event_id]
    publish(kafka_settings, topic, [second])
    signals = SignalRecorder()
    handler = subscribe(REQUESTED, group=group)(record_effect)
    successor = Consumer(database, kafka_settings, [handler], topics=[topic], on_signal=signals)
    work = asyncio.create_task(successor.run())
    await signals.wait_for(ConsumerSignal.COMMITTED)
    successor.stop()
    await asyncio.wait_for(work, WAIT_S)
    assert await effects(database) == [first.event_id, second.event_id]
    assert signals.counts[ConsumerSignal.ALREADY_DONE] == (0 if offset_committed else 1)


async def test_consumer_stopped_by_sigterm_exits_0_and_frees_partitions(
    database: Database, kafka_settings: KafkaSettings, topic: str, consumer_process: StartProcess
) -> None:
    events = [make_event(), make_event()]
    async with consumer_process() as process:
        publish(kafka_settings, topic, events[:1])
        await process.wait_for_line(ConsumerSignal.COMMITTED)
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0
    async with consumer_process() as successor:
        publish(kafka_settings, topic, events[1:])
        await successor.wait_for_line(ConsumerSignal.COMMITTED)
    assert await effects(database) == [event.event_id for event in events]


@pytest.mark.guarantee("G06")
@pytest.mark.parametrize(("number", "attempts"), [(signal.SIGKILL, 2), (signal.SIGTERM, 1)])
async def test_task_of_an_ended_runner_is_taken_over(
    database: Database, postgres_settings: PostgresSettings, number: signal.Signals, attempts: int
) -> None:
    """After a kill: at the end of the lease, as an attempt. After SIGTERM: at once, without an attempt."""
    task_id = await add_task(database)
    lease_s = "1" if number is signal.SIGKILL else "3600"
    environment = server_environment(postgres_settings)
    async with python_process("tests.fixtures.task_process", lease_s, environment=environment) as process:
        await process.wait_for_line("working")
        process.signal(number)
        assert await process.exit_code() == (-number if number is signal.SIGKILL else 0)

    async def work(task: Task, progress: Progress) -> None:
        assert task.progress == 30
        async with database.connection() as connection:
            await complete_task(connection, task.fence, result={})

    async def give_up(task: Task) -> None:
        raise AssertionError("never exhausted here")

    signals = SignalRecorder()
    settings = TaskSettings(poll_s=0.05)
    runner = TaskRunner(
        database, {TASK_TYPE: work}, on_exhausted=give_up, settings=settings, on_signal=signals
    )
    running = asyncio.create_task(runner.run())
    await signals.wait_for(TaskSignal.ENDED)
    runner.stop()
    await asyncio.wait_for(running, WAIT_S)
    row = await task_row(database, task_id)
    assert (row["status"], row["attempts"]) == ("COMPLETED", attempts)
