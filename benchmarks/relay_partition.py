"""Measure the effect of partitions without a leader on the keys of other partitions (G36).

Three brokers, a topic without replicas, single events at a steady rate in an open loop. One broker is killed
and not started again, so that its partitions have no leader. The figures compare a period before with a
period after the kill: the share of the events of all other keys, written in the period, that are published in
the same period. In the first seconds after the kill the cluster has not yet detected the failure, and
in-flight batches wait.
"""

import argparse
import asyncio
import itertools
import json
import os
import tempfile
import time
import urllib.request
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from _backlog import TOPIC, connected, relays
from _stage import Process, servers, show
from confluent_kafka.admin import AdminClient
from pydantic_core import to_json
from relay_latency import APPEND, DELIVERIES, envelope_of
from relaybox.db import Database, load_queries
from relaybox.local import LocalKafkaCluster
from relaybox.outbox import Notifier
from relaybox.settings import KafkaSettings, PostgresSettings, RelaySettings, load_settings
from relaybox.topics import Replication, ensure_topics
from relaybox.verify import partition_of

SQL: Final = load_queries("statements", "partition.sql")
PARTITIONS: Final = 8
KEYS: Final = 2_000
WARM_UP_S_MIN: Final = 5.0
WARM_UP_S_MAX: Final = 120.0
#: The relay keeps up if this number of consecutive queries find no event that has waited for ``PROMPT_S``.
PROMPT_LOOKS: Final = 20
PROMPT_S: Final = 2.0
LOOK_S: Final = 0.1
DEGRADED_S_MAX: Final = 60.0


class Load:
    """Write single events at a steady rate, with the keys in turn."""

    def __init__(self, database: Database, notifier: Notifier, per_s: float) -> None:
        self._database = database
        self._notifier = notifier
        self._per_s = per_s
        self.keys = [str(uuid4()) for _ in range(KEYS)]
        self._next = itertools.cycle(self.keys)

    async def run(self) -> None:
        """Write until cancelled."""
        began = time.perf_counter()
        async with asyncio.TaskGroup() as writing:
            for number in itertools.count():
                await asyncio.sleep(max(0.0, began + number / self._per_s - time.perf_counter()))
                writing.create_task(self._write(next(self._next)))

    async def _write(self, key: str) -> None:
        async with self._database.connection() as connection:
            await connection.fetch(APPEND, TOPIC, key, to_json(envelope_of(key)).decode())
        self._notifier.notify([key])


def partitions_of(broker: int) -> set[int]:
    """Return the partitions of the topic whose only replica is on *broker*."""
    with AdminClient({**load_settings(KafkaSettings).client_config(), "log_level": 0}) as admin:
        found = admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
    return {number for number, each in found.items() if list(each.replicas) == [broker]}


async def degraded_after_s(relay: Process) -> float:
    """Return the seconds until the relay's ``/readyz`` says that it is degraded."""
    began = time.perf_counter()
    while time.perf_counter() - began < DEGRADED_S_MAX:
        if await asyncio.to_thread(_is_degraded, relay.port):
            return time.perf_counter() - began
        await asyncio.sleep(LOOK_S)
    raise SystemExit(
        f"/readyz of the relay does not report degraded {DEGRADED_S_MAX:g} s after a broker was killed"
    )


def _is_degraded(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
        return json.load(response)["checks"]["relay"]["status"] == "degraded"


async def warm(connection: Any) -> None:
    """Wait until the relay keeps up with the load: brokers are slow after their start."""
    async with asyncio.timeout(WARM_UP_S_MAX):
        await asyncio.sleep(WARM_UP_S_MIN)
        prompt = 0
        while prompt < PROMPT_LOOKS:
            await asyncio.sleep(LOOK_S)
            [oldest] = await connection.fetch(SQL["oldest"])
            prompt = prompt + 1 if (oldest["wait_s"] or 0.0) < PROMPT_S else 0


async def measure(
    connection: Any, cluster: LocalKafkaCluster, load: Load, relay: Process, calm_s: float, away_s: float
) -> dict[str, float]:
    """Kill a broker during the load; return figures of the keys on other brokers, before and after."""
    lost = partitions_of(1)
    held = [key for key in load.keys if partition_of(key, PARTITIONS) in lost]
    await warm(connection)
    [calm] = await connection.fetch(SQL["now"])
    await asyncio.sleep(calm_s)
    [away] = await connection.fetch(SQL["now"])
    cluster.brokers[0].kill()
    degraded = asyncio.create_task(degraded_after_s(relay))
    await asyncio.sleep(away_s)
    [before] = await connection.fetch(SQL["others"], calm["at"], calm_s, held)
    [after] = await connection.fetch(SQL["others"], away["at"], away_s, held)
    return {
        "ratio_others": round(
            after["published"] / after["written"] / (before["published"] / before["written"]), 3
        ),
        "others_per_s": round(after["published"] / away_s, 1),
        "others_wait_s_max": round(after["wait_s_max"], 1),
        "degraded_after_s": round(await degraded, 1),
        "partitions_away": len(lost),
    }


async def run_delivery(delivery: str, per_s: float, calm_s: float, away_s: float) -> dict[str, float]:
    """Measure one delivery on new servers."""
    replication = Replication.of(RelaySettings(topic_replication=1, topic_min_isr=1))
    with tempfile.TemporaryDirectory(prefix="relaybox-bench-", ignore_cleanup_errors=True) as place:
        cluster = LocalKafkaCluster(3, Path(place))
        async with servers(kafka=False):
            try:
                await cluster.start()
                os.environ.update(cluster.settings())
                kafka = load_settings(KafkaSettings)
                await ensure_topics(kafka, [TOPIC], partitions=PARTITIONS, replication=replication)
                with relays(1, delivery) as [relay]:
                    async with connected() as connection, loaded(per_s) as load:
                        return await measure(connection, cluster, load, relay, calm_s, away_s)
            finally:
                cluster.kill()


@asynccontextmanager
async def loaded(per_s: float) -> AsyncGenerator[Load]:
    """Write *per_s* events per second during a ``with`` block."""
    database = Database(load_settings(PostgresSettings), application_name="bench-writer")
    notifier = Notifier(database)
    await notifier.start()
    load = Load(database, notifier, per_s)
    writing = asyncio.create_task(load.run())
    try:
        yield load
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await notifier.stop()
        await database.close()


async def main(deliveries: Sequence[str], per_s: float, calm_s: float, away_s: float) -> None:
    """Measure *deliveries*, and print the figures."""
    figures: dict[str, float] = {}
    for name in deliveries:
        delivery = DELIVERIES[name]
        found = await run_delivery(delivery, per_s, calm_s, away_s)
        figures |= {f"{name}_{what}": value for what, value in found.items()}
    figures |= {"per_s": per_s, "away_s": away_s}
    rows = [(name, str(value)) for name, value in figures.items()]
    show("The partitions of a killed broker take no writes", rows, figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-s", type=float, default=300.0, help="events written each second")
    parser.add_argument("--away-s", type=float, default=120.0, help="seconds without the killed broker")
    parser.add_argument("--short", action="store_true", help="exactly once only, and 15 s")
    given = parser.parse_args()
    if given.short:
        asyncio.run(main(["exactly_once"], given.per_s, 5.0, 15.0))
    else:
        asyncio.run(main(list(DELIVERIES), given.per_s, 10.0, given.away_s))
