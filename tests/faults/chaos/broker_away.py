"""``python -m tests.faults.chaos.broker_away``: measure delays while one of three brokers is unavailable.

Two relays run with default settings. The figures are, by key, the longest time from the COMMIT of an event
until a ``read_committed`` consumer received it; nothing is asserted.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, get_args
from uuid import UUID

from pydantic_core import to_json
from relaybox.local import LocalKafka
from relaybox.settings import RelaySettings

from tests.faults.chaos._cluster import BROKERS, ClusterServers, start_cluster
from tests.faults.chaos._journal import Journal, Timeline
from tests.faults.chaos._report import quantile
from tests.faults.chaos._servers import TOPIC
from tests.faults.chaos._services import ServiceSlot
from tests.faults.chaos._topic import TopicFollower
from tests.faults.chaos._writers import Writer
from tests.fixtures.clusters import wait_for_replicas

_RELAYS: Final = 2
_KEYS: Final = 200
_PREFIX: Final = "key-"
#: Interval between two events of each key.
_EVERY_S: Final = 1.0
_CALM_S: Final = 10.0
_DRAIN_S: Final = 120.0
_PAUSE_S: Final = 0.1
_NOTIFY: Final = "SELECT pg_notify('relaybox_outbox', '')"
_FAULTS: Final = ("kill", "freeze")


@dataclass(kw_only=True)
class _Measurement:
    """The components of a measurement."""

    servers: ClusterServers
    journal: Journal
    timeline: Timeline
    writer: Writer
    follower: TopicFollower
    #: Key of each event that was acknowledged.
    keys: dict[UUID, str] = field(default_factory=dict[UUID, str])

    async def write(self, seconds: float) -> None:
        """Write an event of each key again and again for *seconds*."""
        connection = await self.servers.connect()
        try:
            until_s = time.monotonic() + seconds
            while (began_s := time.monotonic()) < until_s:
                events = await self.writer.write([(key, 1) for key in self.writer.keys])
                await connection.execute(_NOTIFY)
                self.keys |= {each.event_id: each.key for each in events or []}
                await asyncio.sleep(max(0.0, began_s + _EVERY_S - time.monotonic()))
        finally:
            connection.terminate()

    async def wait_until_drained(self) -> None:
        """Wait until the consumer has every event.

        Raises:
            TimeoutError: An event is missing after two minutes.
        """
        async with asyncio.timeout(_DRAIN_S):
            while any(each not in self.follower.seen_s for each in self.keys):  # noqa: ASYNC110 - a thread reads
                await asyncio.sleep(_PAUSE_S)

    def worst_waits(self, from_s: float, until_s: float) -> dict[str, float]:
        """Return the longest delay by key of events committed in this interval."""
        worst: dict[str, float] = defaultdict(float)
        seen_s: Mapping[UUID, float] = self.follower.seen_s
        for event_id, key in self.keys.items():
            at_s = self.journal.result_s[event_id]
            if from_s <= at_s < until_s:
                worst[key] = max(worst[key], seen_s[event_id] - at_s)
        return worst


def main() -> int:
    """Measure as configured, and print a JSON line for each outage."""
    known = RelaySettings.model_fields["delivery"]
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos.broker_away", description=__doc__)
    parser.add_argument("--delivery", choices=get_args(known.annotation), default=known.default)
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of an outage (60)")
    parser.add_argument("--faults", nargs="+", choices=_FAULTS, default=_FAULTS)
    parser.add_argument("--brokers", nargs="+", type=int, choices=range(1, BROKERS + 1), default=[1, 2, 3])
    parser.add_argument("--keep", action="store_true", help="keep the logs of the relays")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="relaybox-away-"))
    directory.chmod(0o711)
    try:
        asyncio.run(_measure(arguments, directory))
    finally:
        if arguments.keep:
            sys.stdout.write(f"Logs and data are kept in {directory}\n")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return 0


async def _measure(arguments: argparse.Namespace, directory: Path) -> None:
    async with (
        start_cluster(directory) as servers,
        _started_measurement(servers, arguments.delivery) as measurement,
    ):
        await measurement.write(_CALM_S)
        await measurement.wait_until_drained()
        for fault in arguments.faults:
            for number in arguments.brokers:
                measurement.timeline.note(f"{fault} of broker {number} begins")
                waits = await _measure_outage(
                    measurement, fault, servers.kafka.brokers[number - 1], arguments.seconds
                )
                line = {"delivery": arguments.delivery, "fault": fault, "broker": number, **waits}
                sys.stdout.write(to_json(line).decode() + "\n")
                sys.stdout.flush()


@asynccontextmanager
async def _started_measurement(servers: ClusterServers, delivery: str) -> AsyncGenerator[_Measurement]:
    async with AsyncExitStack() as stack:
        journal = Journal(servers.directory / "journal.jsonl")
        timeline = Timeline(servers.directory / "timeline.log")
        stack.callback(journal.close)
        stack.callback(timeline.close)
        for number in range(_RELAYS):
            environment = {**servers.service_environment(), "RELAY_DELIVERY": delivery, "LOG_JSON": "true"}
            name = f"relay-{number}"
            relay = ServiceSlot(
                name,
                ("relay", "run"),
                environment=environment,
                log=servers.directory / f"{name}.log",
                timeline=timeline,
            )
            relay.start()
            stack.push_async_callback(relay.stop)
        follower = TopicFollower(servers.bootstrap_servers, _PREFIX)
        follower.start()
        stack.callback(follower.stop)
        keys = [f"{_PREFIX}{number}" for number in range(_KEYS)]
        writer = Writer("writer", keys, servers.connect, journal=journal, timeline=timeline, seed=0)
        stack.push_async_callback(writer.close)
        yield _Measurement(
            servers=servers, journal=journal, timeline=timeline, writer=writer, follower=follower
        )


async def _measure_outage(
    measurement: _Measurement, fault: str, broker: LocalKafka, seconds: float
) -> dict[str, float]:
    """Kill or freeze *broker* for *seconds*; return quantiles of the longest delays by key."""
    began_s = time.monotonic()
    if fault == "kill":
        broker.kill()
    else:
        broker.pause()
    await measurement.write(seconds)
    back_s = time.monotonic()
    if fault == "kill":
        starting = asyncio.create_task(broker.start())
    else:
        broker.resume()
        starting = asyncio.create_task(asyncio.sleep(0))
    await measurement.write(_CALM_S)
    await starting
    await measurement.wait_until_drained()
    await wait_for_replicas(measurement.servers.kafka_settings(), TOPIC, BROKERS)
    away = sorted(measurement.worst_waits(began_s - _EVERY_S, back_s).values())
    returning = measurement.worst_waits(back_s, float("inf")).values()
    shares = {"p50_s": 0.5, "p99_s": 0.99, "max_s": 1.0}
    return {
        "keys": len(away),
        **{name: round(quantile(away, share), 2) for name, share in shares.items()},
        "max_s_as_it_returns": round(max(returning), 2),
    }


if __name__ == "__main__":
    sys.exit(main())
