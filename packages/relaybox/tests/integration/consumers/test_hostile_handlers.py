"""No message stops a group, whatever its handler does."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from relaybox.consumers import ConsumerSignal, EventTransaction, subscribe
from relaybox.consumers._errors import HandlerEndedTransaction
from relaybox.db import Database, DatabaseUnavailable, executor_of
from relaybox.settings import KafkaSettings
from relaybox_types.envelope import EventEnvelope
from sqlalchemy import text

from tests.fixtures.events import REQUESTED, effects, make_event, publish, publish_raw, record_effect
from tests.fixtures.letters import letter_rows
from tests.fixtures.raw_headers import publish_with_header

COMMITTED, PARKED = ConsumerSignal.COMMITTED, ConsumerSignal.PARKED
Act = Callable[[EventTransaction], Awaitable[None]]


class Abort(BaseException):
    """Neither an error nor one of Python's exceptions that end a program."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class CodeWithNul(Exception):
    error_code = "A\0B\ud800"


async def abort(unit: EventTransaction) -> None:
    raise Abort


async def exit_process(unit: EventTransaction) -> None:
    raise SystemExit(3)


async def cancel_itself(unit: EventTransaction) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def cancel_itself_and_wait(unit: EventTransaction) -> None:
    await cancel_itself(unit)
    await asyncio.Event().wait()


async def unprintable(unit: EventTransaction) -> None:
    raise Unprintable


async def code_with_nul(unit: EventTransaction) -> None:
    raise CodeWithNul


async def hang_in_statement(unit: EventTransaction) -> None:
    await executor_of(unit.db).fetch("SELECT pg_sleep(3600)")


async def roll_back(unit: EventTransaction) -> None:
    await unit.db.rollback()
    await record_effect(unit.event, unit)


async def roll_back_in_sql(unit: EventTransaction) -> None:
    await executor_of(unit.db).fetch("ROLLBACK")


async def commit(unit: EventTransaction) -> None:
    await unit.db.commit()


async def commit_later(unit: EventTransaction) -> None:
    async with unit.db.begin_nested():
        await record_effect(unit.event, unit)
    transaction = unit.db.get_transaction()
    assert transaction is not None
    await transaction.commit()


async def commit_from_a_savepoint(unit: EventTransaction) -> None:
    transaction = unit.db.get_transaction()
    assert transaction is not None
    async with unit.db.begin_nested():
        await transaction.commit()


async def commit_the_connection(unit: EventTransaction) -> None:
    await (await unit.db.connection()).commit()


async def commit_another_transaction(unit: EventTransaction) -> None:
    await unit.db.rollback()
    await record_effect(unit.event, unit)
    await unit.db.commit()


async def commit_after_an_empty_statement(unit: EventTransaction) -> None:
    await executor_of(unit.db).fetch(";COMMIT")


async def suppress_a_refused_commit(unit: EventTransaction) -> None:
    with suppress(HandlerEndedTransaction):
        await unit.db.commit()


async def commit_in_sql(unit: EventTransaction) -> None:
    await executor_of(unit.db).fetch("/* done */ Commit")


async def end_in_sql(unit: EventTransaction) -> None:
    await unit.db.execute(text("-- done\nEND"))


async def commit_in_sql_without_parameters(unit: EventTransaction) -> None:
    await unit.db.execute(text("COMMIT"), execution_options={"no_parameters": True})


async def commit_in_sql_many_times(unit: EventTransaction) -> None:
    await unit.db.execute(text("COMMIT"), [{}, {}])


async def commit_and_chain(unit: EventTransaction) -> None:
    await executor_of(unit.db).fetch(" commit and chain")
    raise RuntimeError("the effect was committed in part")


async def roll_back_and_chain(unit: EventTransaction) -> None:
    await executor_of(unit.db).fetch("ROLLBACK WORK AND\nCHAIN")
    await record_effect(unit.event, unit)


async def close_session(unit: EventTransaction) -> None:
    await unit.db.close()


@pytest.fixture(autouse=True)
def no_retry_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", (0.0, 0.0, 0.0))


async def parked(database: Database) -> list[object]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT event_id FROM dead_letters ORDER BY id")
    return [row["event_id"] for row in rows]


#: Handlers that end, or try to end, their transaction.
ENDING: tuple[Act, ...] = (
    roll_back,
    roll_back_in_sql,
    commit,
    commit_later,
    commit_from_a_savepoint,
    commit_the_connection,
    commit_another_transaction,
    commit_after_an_empty_statement,
    commit_in_sql,
    commit_in_sql_without_parameters,
    commit_in_sql_many_times,
    end_in_sql,
    commit_and_chain,
    roll_back_and_chain,
    close_session,
)


@pytest.mark.guarantee("G41")
@pytest.mark.parametrize(
    "act",
    [
        abort,
        cancel_itself,
        cancel_itself_and_wait,
        unprintable,
        code_with_nul,
        hang_in_statement,
        suppress_a_refused_commit,
        *ENDING,
    ],
)
async def test_message_whose_handler_breaks_the_rules_is_parked(
    act: Act, database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    bad, good = make_event(aggregate_id="a"), make_event(aggregate_id="b")

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        await record_effect(event, unit)
        if event == bad:
            await act(unit)

    subscription = subscribe(REQUESTED, group=group, handler_timeout_s=0.5)(handler)
    async with start_consumer(subscription) as running:
        publish(kafka_settings, topic, [bad])
        await running.signals.wait_for(PARKED)
        publish(kafka_settings, topic, [good])
        await running.signals.wait_for(COMMITTED)
    [letter] = await letter_rows(database)
    assert letter["event_id"] == bad.event_id
    assert (letter["error_code"] == "HANDLER_ENDED_TRANSACTION") == (act in ENDING)
    assert await effects(database) == [good.event_id]


@pytest.mark.guarantee("G41")
@pytest.mark.parametrize(
    "act", [abort, exit_process, cancel_itself_and_wait, unprintable, hang_in_statement, commit]
)
async def test_message_whose_on_parked_fails_is_parked_without_it(
    act: Act, database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    bad, good = make_event(aggregate_id="a"), make_event(aggregate_id="b")

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        if event == bad:
            raise RuntimeError
        await record_effect(event, unit)

    async def on_parked(event: EventEnvelope, failure: BaseException, unit: EventTransaction) -> None:
        await record_effect(event, unit)
        await act(unit)

    options = {"group": group, "handler_timeout_s": 0.5}
    async with start_consumer(subscribe(REQUESTED, **options, on_parked=on_parked)(handler)) as running:
        publish(kafka_settings, topic, [bad])
        await running.signals.wait_for(PARKED)
        publish(kafka_settings, topic, [good])
        await running.signals.wait_for(COMMITTED)
    assert await parked(database) == [bad.event_id]
    assert await effects(database) == [good.event_id]


async def time_out(unit: EventTransaction) -> None:
    """Execute a statement that exceeds PostgreSQL's time limit (57014)."""
    await executor_of(unit.db).fetch("SET LOCAL statement_timeout = 1")
    await executor_of(unit.db).fetch("SELECT pg_sleep(10)")


@pytest.fixture
def no_database_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaybox.consumers._policy._DATABASE_PAUSE_S", 0.001)


@pytest.mark.guarantee("G41")
async def test_message_whose_statement_always_times_out_is_parked(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    start_consumer,
    no_database_pauses: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relaybox.consumers._policy._ISOLATED_FAILURES_MAX", 2)
    bad = make_event(aggregate_id="a")

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        await record_effect(event, unit)
        if event == bad:
            await time_out(unit)

    async with start_consumer(handler) as running:
        publish(kafka_settings, topic, [bad])
        for number in range(1, 1_000):
            publish(kafka_settings, topic, [make_event(aggregate_id="b")])
            await running.signals.wait_for(COMMITTED, number)
            if running.signals.counts[PARKED]:
                break
        await running.signals.wait_for(PARKED)
    assert await parked(database) == [bad.event_id]
    assert bad.event_id not in await effects(database)


@pytest.mark.guarantee("G41")
@pytest.mark.parametrize(("timeouts", "effective"), [(3, True), (1_000, False)])
async def test_on_parked_that_times_out_is_retried_before_it_is_left_out(
    timeouts: int,
    effective: bool,
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    group: str,
    start_consumer,
    no_database_pauses: None,
) -> None:
    bad, calls = make_event(), 0

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        raise RuntimeError

    async def on_parked(event: EventEnvelope, failure: BaseException, unit: EventTransaction) -> None:
        nonlocal calls
        calls += 1
        await record_effect(event, unit)
        if calls <= timeouts:
            await time_out(unit)

    async with start_consumer(subscribe(REQUESTED, group=group, on_parked=on_parked)(handler)) as running:
        publish(kafka_settings, topic, [bad])
        await running.signals.wait_for(PARKED)
    assert await parked(database) == [bad.event_id]
    assert await effects(database) == ([bad.event_id] if effective else [])
    assert calls == (timeouts + 1 if effective else 11)


async def test_actions_after_commit_of_on_parked_are_called(
    kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    called = asyncio.Event()

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        raise RuntimeError

    async def on_parked(event: EventEnvelope, failure: BaseException, unit: EventTransaction) -> None:
        unit.after_commit(called.set)

    async with start_consumer(subscribe(REQUESTED, group=group, on_parked=on_parked)(handler)) as running:
        publish(kafka_settings, topic, [make_event()])
        await running.signals.wait_for(PARKED)
    assert called.is_set()


@pytest.mark.guarantee("G42")
async def test_handler_that_reports_the_database_down_holds_only_its_key(
    database: Database, kafka_settings: KafkaSettings, topic: str, start_consumer
) -> None:
    """As a handler of a second database does, or one whose idle transactions the server ends."""
    bad, others = make_event(aggregate_id="a"), [make_event() for _ in range(20)]

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        if event == bad:
            raise DatabaseUnavailable("another database")
        await record_effect(event, unit)

    async with start_consumer(handler) as running:
        publish(kafka_settings, topic, [bad])
        await running.signals.wait_for(ConsumerSignal.WAITING_FOR_DATABASE)
        publish(kafka_settings, topic, others)
        await running.signals.wait_for(COMMITTED, len(others))
    assert sorted(await effects(database)) == sorted(event.event_id for event in others)


@pytest.mark.guarantee("G40")
async def test_event_in_two_messages_of_one_transaction_has_one_effect(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    """A producer that repeats a message under another key, or without keys, may do so."""
    event = make_event()
    value = event.model_dump_json().encode()
    publish_raw(kafka_settings, topic, [(key, value, REQUESTED) for key in ("a", "b", "c")])
    subscription = subscribe(REQUESTED, group=group, transaction_events_max=10)(record_effect)
    async with start_consumer(subscription) as running:
        await running.signals.wait_for(ConsumerSignal.ALREADY_DONE, 2)
    assert await effects(database) == [event.event_id]


@pytest.mark.guarantee("G41")
async def test_header_whose_name_is_not_utf8_does_not_stop_the_group(
    database: Database, kafka_settings: KafkaSettings, topic: str, start_consumer
) -> None:
    event = make_event()
    async with start_consumer(record_effect) as running:
        value = event.model_dump_json().encode()
        publish_with_header(kafka_settings.bootstrap_servers, topic, value, b"n\xff")
        publish_with_header(kafka_settings.bootstrap_servers, topic, b"no event", b"n\xff")
        await running.signals.wait_for(COMMITTED)
        await running.signals.wait_for(PARKED)
    assert await effects(database) == [event.event_id]
