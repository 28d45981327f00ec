"""The consumers that ``consumers.py`` compares, each in a separate process, except FastStream's.

* ``relaybox``: Relaybox's consumer; each event has a transaction of its own.
* ``shared``: the same with ``transaction_events_max=50``.
* ``bare``: a loop that polls one message, inserts in a transaction of asyncpg, and commits the offset without
  waiting for the broker. It handles one event after the other and records none, so that a redelivered event
  has its effect again.

Every handler inserts the same row.
"""

import asyncio
import json
import os
import sys
from typing import Any, Final
from uuid import UUID

from _backlog import connected
from confluent_kafka import Consumer as KafkaConsumer
from relaybox.consumers import Consumer, EventTransaction, subscribe
from relaybox.db import Database, load_queries
from relaybox.events import EventType
from relaybox.settings import KafkaSettings, PostgresSettings, load_settings
from relaybox.telemetry import configure_logging
from relaybox_types.envelope import EventEnvelope
from sqlalchemy import text

__all__ = ("EVENT_TYPE", "SHARED_EVENTS_MAX", "SQL")

SQL: Final = load_queries("statements", "consumers.sql")
EVENT_TYPE: Final = "Genesis.Session.FeedbackSubmitted"
#: Events that may share a transaction, for the contestant ``shared``.
SHARED_EVENTS_MAX: Final = 50
_INSERT: Final = text("INSERT INTO bench_effects (event_id, key) VALUES (:event_id, :key)")
#: Limit of an attempt of Relaybox's handler.
HANDLER_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 1.0


async def raise_error() -> None:
    """Fail as a handler with a defect does."""
    raise RuntimeError("poisoned event")


async def hang() -> None:
    """Wait without end."""
    await asyncio.Event().wait()


async def exit_program() -> None:
    """Raise SystemExit, as code that ends its process does."""
    raise SystemExit(3)


FAILURES: Final = {"raise": raise_error, "hang": hang, "exit": exit_program}


async def relaybox(topic: str, group: str, transaction_events_max: int) -> None:
    """Run Relaybox's consumer until the process is killed."""
    concurrency = int(os.environ.get("BENCH_CONCURRENCY", "8"))
    wait_s, slow_key = float(os.environ.get("BENCH_WAIT_S", "0")), os.environ.get("BENCH_SLOW_KEY")
    slow_s = float(os.environ.get("BENCH_SLOW_S", "0"))

    fail = FAILURES.get(os.environ.get("BENCH_FAILURE", ""))

    @subscribe(
        EventType(EVENT_TYPE) if os.environ.get("BENCH_DECLARED") else EVENT_TYPE,
        group=group,
        transaction_events_max=transaction_events_max,
        handler_timeout_s=HANDLER_TIMEOUT_S,
    )
    async def insert(event: EventEnvelope, unit: EventTransaction) -> None:
        key = str(event.aggregate_id)
        if fail is not None and key == slow_key:
            await fail()
        pause_s = slow_s if key == slow_key else wait_s
        if pause_s:
            await asyncio.sleep(pause_s)
        await unit.db.execute(_INSERT, {"event_id": event.event_id, "key": key})

    configure_logging("bench", "WARNING")
    settings = load_settings(PostgresSettings).model_copy(update={"pool_size": concurrency + 2})
    database = Database(settings, application_name="bench-consumer")
    consumer = Consumer(
        database, load_settings(KafkaSettings), [insert], topics=[topic], concurrency=concurrency
    )
    await consumer.run()


async def bare(topic: str, group: str) -> None:
    """Run the bare loop until the process is killed."""
    kafka = KafkaConsumer(
        {
            **load_settings(KafkaSettings).client_config(),
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    kafka.subscribe([topic])
    async with connected() as connection:
        while True:
            message: Any = kafka.poll(_POLL_S)
            if message is None or message.error():
                continue
            event = json.loads(message.value())
            async with connection.transaction():
                await connection.execute(SQL["insert_effect"], UUID(event["event_id"]), event["aggregate_id"])
            kafka.commit(message=message, asynchronous=True)


async def main(name: str, topic: str, group: str) -> None:
    """Run the contestant *name*."""
    match name:
        case "bare":
            await bare(topic, group)
        case "relaybox":
            await relaybox(topic, group, 1)
        case _:
            await relaybox(topic, group, SHARED_EVENTS_MAX)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
