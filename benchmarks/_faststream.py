"""Run ``faststream-outbox`` as a relay; started with the Python of the peers' environment.

Settings from its documentation, pages "Performance" and "Subscriber": terminal deletes in batches of
100, large fetches, several workers, no log line per message. Bodies pass through as bytes.
"""

import asyncio
import os

from faststream import FastStream
from faststream.kafka import KafkaBroker
from faststream.kafka.response import KafkaResponse
from faststream_outbox import OutboxBroker, make_outbox_table
from faststream_outbox.annotations import OutboxMessage
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

WORKERS = 32
QUEUE = "events"

table = make_outbox_table(MetaData(), table_name="bench_faststream")
engine = create_async_engine(os.environ["PEER_DATABASE"], pool_size=WORKERS + 5)
outbox = OutboxBroker(engine, outbox_table=table, logger=None)
kafka = KafkaBroker(os.environ["PEER_KAFKA"], acks="all", enable_idempotence=True, linger_ms=2, logger=None)


@kafka.publisher(os.environ["PEER_TOPIC"])
@outbox.subscriber(
    QUEUE,
    max_workers=WORKERS,
    fetch_batch_size=500,
    min_fetch_interval=0.01,
    max_fetch_interval=1.0,
    terminal_flush_batch_size=100,
)
async def relay(message: OutboxMessage) -> KafkaResponse:
    """Publish one row."""
    return KafkaResponse(message.body, key=message.headers["key"].encode())


async def main() -> None:
    """Create the table, then publish rows until SIGTERM."""
    async with engine.begin() as connection:
        await connection.run_sync(table.metadata.create_all)
    await FastStream(outbox, on_startup=[kafka.connect]).run()


if __name__ == "__main__":
    asyncio.run(main())
