"""Three brokers, a primary with a standby behind PgBouncer, and the faults of these servers."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

from relaybox.db import BACKBONE, migrate_up
from relaybox.local import LocalKafkaCluster, LocalPostgres
from relaybox.settings import KafkaSettings
from relaybox.topics import ensure_topics

from tests.faults.chaos._injector import FaultHandler
from tests.faults.chaos._journal import Timeline
from tests.faults.chaos._proxy import Proxy
from tests.faults.chaos._schedule import Fault, FaultKind
from tests.faults.chaos._servers import PARTITIONS, TOPIC, ChaosServers
from tests.fixtures.failover import ServerPair
from tests.fixtures.pgbouncer import PgBouncer, find_pgbouncer

BROKERS: Final = 3
#: Kafka's own defaults: the product itself must create topics and markers with three replicas (G37).
_PROPERTIES: Final = {"default.replication.factor": "1", "min.insync.replicas": "1"}


@dataclass(frozen=True, kw_only=True)
class ClusterServers(ChaosServers):
    """Services connect to PgBouncer, which connects to the address that follows the primary."""

    pair: ServerPair
    kafka: LocalKafkaCluster
    pooler: PgBouncer
    #: ``time.monotonic()`` of each promotion of a lagging standby: start of the lag, and redirection of the
    #: address to that standby.
    lossy_windows: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])

    @property
    def server(self) -> LocalPostgres:
        return self.pair.primary

    @property
    def port(self) -> int:
        return self.pair.address.port

    @property
    def services_port(self) -> int:
        return self.pooler.port

    def kafka_settings(self) -> KafkaSettings:
        return KafkaSettings(host=self.kafka.settings()["KAFKA_HOST"])

    def service_environment(self) -> dict[str, str]:
        return {
            **self.pair.primary.settings(),
            "POSTGRES_PORT": str(self.pooler.port),
            "POSTGRES_POOLER": self.pooler.mode,
            **self.kafka.settings(),
        }


@asynccontextmanager
async def start_cluster(directory: Path) -> AsyncGenerator[ClusterServers]:
    """Start the servers in *directory*, create schema and topic, and stop the servers at the end."""
    primary = LocalPostgres(directory / "postgres", durable=False)
    kafka = LocalKafkaCluster(BROKERS, directory / "kafka", properties=_PROPERTIES)
    address, pooler, pair = None, None, None
    try:
        await asyncio.gather(primary.start(), kafka.start())
        address = Proxy(primary.port)
        await address.start()
        standby = await primary.make_standby(directory / "standby")
        await standby.start()
        pair = ServerPair(primary=primary, standby=standby, address=address)
        await pair.require_standby(required=True)
        pooler = PgBouncer(find_pgbouncer(), directory / "pgbouncer", primary, "session", address.port)
        await pooler.start()
        servers = ClusterServers(directory=directory, pair=pair, kafka=kafka, pooler=pooler)
        await migrate_up(servers.settings(), BACKBONE)
        await ensure_topics(servers.kafka_settings(), [TOPIC], partitions=PARTITIONS)
        yield servers
    finally:
        if pooler is not None:
            pooler.kill()
        if address is not None:
            await address.close()
        for server in (pair.primary, pair.standby) if pair is not None else (primary,):
            server.kill()
        kafka.kill()


class ClusterFaults:
    """Handlers of the faults of brokers, PostgreSQL servers and PgBouncer."""

    def __init__(self, servers: ClusterServers, timeline: Timeline) -> None:
        self._servers = servers
        self._timeline = timeline
        self._standbys = count(1)
        self.handlers: Mapping[FaultKind, FaultHandler] = {
            FaultKind.BROKER_KILL: partial(self._interrupt_broker, freeze=False),
            FaultKind.BROKER_FREEZE: partial(self._interrupt_broker, freeze=True),
            FaultKind.BROKERS_ROLL: self._roll_brokers,
            FaultKind.PROMOTION: self._promote,
            FaultKind.LOSSY_PROMOTION: self._promote_lagging,
            FaultKind.POOLER_RESTART: self._restart_pooler,
        }

    async def _interrupt_broker(self, fault: Fault, *, freeze: bool) -> AsyncIterator[None]:
        number = int(fault.pick * BROKERS)
        broker = self._servers.kafka.brokers[number]
        if freeze:
            broker.pause()
        else:
            broker.kill()
        self._timeline.note(f"broker {number + 1} {'frozen' if freeze else 'killed'}")
        yield
        await asyncio.sleep(fault.lasts_s)
        if freeze:
            broker.resume()
        else:
            await broker.start()

    async def _roll_brokers(self, fault: Fault) -> AsyncIterator[None]:
        yield
        for number, broker in enumerate(self._servers.kafka.brokers, start=1):
            self._timeline.note(f"broker {number} stopping")
            await broker.stop()
            await asyncio.sleep(fault.lasts_s)
            await broker.start()

    async def _promote(self, _fault: Fault) -> AsyncIterator[None]:
        yield
        await self._fail_over()
        await self._add_standby()

    async def _promote_lagging(self, fault: Fault) -> AsyncIterator[None]:
        pair = self._servers.pair
        await pair.require_standby(required=False)
        began_s = time.monotonic()
        await pair.pause_replication()
        self._timeline.note("standby lags from now on")
        await asyncio.sleep(fault.lasts_s)
        yield
        await self._fail_over()
        self._servers.lossy_windows.append((began_s, time.monotonic()))
        await self._add_standby()

    async def _fail_over(self) -> None:
        pair = self._servers.pair
        self._timeline.note(f"primary on port {pair.primary.port} killed")
        await pair.fail_over()
        self._timeline.note(f"standby on port {pair.standby.port} promoted")

    async def _add_standby(self) -> None:
        """Start a standby of the new primary, and make replication synchronous again."""
        pair = self._servers.pair
        await pair.add_standby(self._servers.directory / f"standby-{next(self._standbys)}")
        for retired in pair.retired:
            retired.remove()
        pair.retired.clear()
        await pair.require_standby(required=True)
        self._timeline.note(f"standby on port {pair.standby.port} follows")

    async def _restart_pooler(self, fault: Fault) -> AsyncIterator[None]:
        self._servers.pooler.kill()
        yield
        await asyncio.sleep(fault.lasts_s)
        await self._servers.pooler.start()
