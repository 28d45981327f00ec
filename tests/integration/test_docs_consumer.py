"""The consumer of the page "Write a consumer" runs on real servers, as documented."""

import asyncio
from pathlib import Path
from typing import Any

from relaybox.consumers import Consumer, ConsumerSignal
from relaybox.db import Database
from relaybox.settings import KafkaSettings, PostgresSettings

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.event_publishing import new_event
from tests.fixtures.events import publish
from tests.fixtures.signal_recorder import SignalRecorder
from tests.unit.test_docs import fences

PAGE = Path(__file__).parents[2] / "docs/how-to/write-a-consumer.md"


async def test_consumer_of_the_page_counts_each_order_once(
    database: Database, postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str
) -> None:
    handler, program = fences(PAGE, "python")
    names: dict[str, Any] = {"__name__": "page"}
    for text in (handler, program):
        exec(compile(text, "page", "exec", dont_inherit=True), names)
    await create_table(postgres_settings)
    customers = ["ada", "bob", "ada"]
    events = [
        new_event(event_type="Shop.Order.Placed", aggregate_id=f"order {number}", payload={"customer": name})
        for number, name in enumerate(customers)
    ]
    signals = SignalRecorder()
    consumer = Consumer(database, kafka_settings, [names["count_order"]], topics=[topic], on_signal=signals)
    work = asyncio.create_task(consumer.run())
    publish(kafka_settings, topic, [*events, events[0]])
    await signals.wait_for(ConsumerSignal.ALREADY_DONE)
    await signals.wait_for(ConsumerSignal.COMMITTED, 3)
    consumer.stop()
    await asyncio.wait_for(work, WAIT_S)
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT customer, orders FROM customer_orders ORDER BY customer")
    assert [tuple(row.values()) for row in rows] == [("ada", 2), ("bob", 1)]


async def create_table(settings: PostgresSettings) -> None:
    [statement] = fences(PAGE, "sql")
    owner = Database(settings.as_owner())
    async with owner.connection() as connection:
        await connection.fetch(statement.rstrip("; \n"))
        await connection.fetch(f'GRANT ALL ON customer_orders TO "{settings.user}"')
    await owner.close()
