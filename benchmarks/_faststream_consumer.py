"""Run FastStream's Kafka subscriber; started with the Python of the peers' environment.

Manual acknowledgement, for which FastStream processes one message after the other. No log line per message.
"""

import asyncio
import os
import sys
from typing import Any
from uuid import UUID

import asyncpg
from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker, KafkaMessage

_, TOPIC, GROUP = sys.argv
INSERT = "INSERT INTO bench_effects (event_id, key) VALUES ($1, $2)"

broker = KafkaBroker(os.environ["PEER_KAFKA"], logger=None)
pools: list[asyncpg.Pool] = []


@broker.subscriber(TOPIC, group_id=GROUP, auto_offset_reset="earliest", ack_policy=AckPolicy.MANUAL)
async def insert(event: dict[str, Any], message: KafkaMessage) -> None:
    """Insert the row of one event in a transaction, then acknowledge the message."""
    async with pools[0].acquire() as connection, connection.transaction():
        await connection.execute(INSERT, UUID(event["event_id"]), event["aggregate_id"])
    await message.ack()


async def main() -> None:
    """Consume until the process is killed."""
    async with asyncpg.create_pool(os.environ["PEER_DATABASE"], min_size=1) as pool:
        pools.append(pool)
        await FastStream(broker, logger=None).run()


if __name__ == "__main__":
    asyncio.run(main())
