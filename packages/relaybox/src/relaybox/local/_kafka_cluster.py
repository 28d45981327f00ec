"""Run a local Kafka cluster of several brokers, for tests of broker failures."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from relaybox.local._account import make_directory
from relaybox.local._kafka import ClusterMember, LocalKafka, new_cluster_id
from relaybox.local._ports import free_port

_HEAP_MIB = 256
_REPLICAS_MAX = 3
_MIN_ISR_MAX = 2
#: ``broker.session.timeout.ms``: longer than the 2 s of a single broker, because several brokers on one
#: machine delay each other's heartbeats.
_SESSION_MS = 4_000


class LocalKafkaCluster:
    """A cluster of brokers on 127.0.0.1, each with its own directory, log and ports.

    Each node is a broker and a voting controller, so a cluster of three tolerates the loss of one node. New
    topics and the internal topics have a replica on each broker, at most three. ``min.insync.replicas`` is
    one less than the number of replicas, but at least 1. An idle broker uses about 180 MiB of memory.

    Each method acts on all :attr:`brokers`; a single broker has the same methods.
    """

    def __init__(
        self,
        brokers: int,
        data_dir: Path,
        *,
        version: str = "4.1.0",
        properties: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Configure the cluster; :meth:`start` starts it.

        Args:
            brokers: Number of brokers, at least 1; their node ids are 1, 2, …
            data_dir: Directory of the cluster; broker *n* has its data in ``broker-n`` in it.
            version: Version of Kafka.
            properties: Additional settings of each broker; they override the settings of the cluster.
        """
        self.data_dir = data_dir.resolve()
        replicas = min(_REPLICAS_MAX, brokers)
        min_isr = min(_MIN_ISR_MAX, max(1, replicas - 1))
        self._properties = {
            "default.replication.factor": str(replicas),
            "min.insync.replicas": str(min_isr),
            "offsets.topic.replication.factor": str(replicas),
            "transaction.state.log.replication.factor": str(replicas),
            "transaction.state.log.min.isr": str(min_isr),
            "broker.session.timeout.ms": str(_SESSION_MS),
            **properties,
        }
        nodes = range(1, brokers + 1)
        ports = _free_ports(2 * brokers)
        controllers = dict(zip(nodes, ports[brokers:], strict=True))
        cluster_id = self._stored_id() or new_cluster_id()
        self.brokers = tuple(
            LocalKafka(
                self.data_dir / f"broker-{node}",
                version=version,
                properties=self._properties,
                member=ClusterMember(node_id=node, controller_ports=controllers, cluster_id=cluster_id),
                heap_mib=_HEAP_MIB,
            )
            for node in nodes
        )
        for broker, port in zip(self.brokers, ports, strict=False):
            broker.port = port
        self._cluster_id = cluster_id

    def __repr__(self) -> str:
        started = sum(broker.is_started for broker in self.brokers)
        return f"<LocalKafkaCluster [{started} of {len(self.brokers)} started | {self.data_dir}]>"

    async def start(self) -> None:
        """Start the brokers that are not started, and return when each of them is ready.

        Raises:
            LocalError: A broker did not start, see :meth:`LocalKafka.start`; all brokers are then killed.
        """
        make_directory(self.data_dir, mode=0o755)
        self._id_file.write_text(f"{self._cluster_id}\n")
        # Started concurrently, because no broker is ready before a majority of controllers has voted.
        starts = [broker.start() for broker in self.brokers if not broker.is_started]
        try:
            results = await asyncio.gather(*starts, return_exceptions=True)
        except asyncio.CancelledError:
            self.kill()
            raise
        for failure in results:
            if failure is not None:
                self.kill()
                raise failure

    async def stop(self) -> None:
        """Shut down all brokers; send SIGKILL to a broker that has not ended after 8 s.

        A broker cannot shut down cleanly if too few controllers are left for a quorum.
        """
        await asyncio.gather(*(broker.stop() for broker in self.brokers))

    def kill(self) -> None:
        """Send SIGKILL to all processes of all brokers."""
        for broker in self.brokers:
            broker.kill()

    def pause(self) -> None:
        """Stop all started brokers by SIGSTOP: connections stay open, and requests get no response."""
        for broker in self.brokers:
            if broker.is_started:
                broker.pause()

    def resume(self) -> None:
        """Let all started brokers continue after :meth:`pause` (SIGCONT)."""
        for broker in self.brokers:
            if broker.is_started:
                broker.resume()

    def settings(self) -> dict[str, str]:
        """Return the environment variables with which services connect to this cluster."""
        return {"KAFKA_HOST": ",".join(f"{broker.host}:{broker.port}" for broker in self.brokers)}

    @property
    def _id_file(self) -> Path:
        return self.data_dir / "cluster-id"

    def _stored_id(self) -> str | None:
        return self._id_file.read_text().strip() if self._id_file.exists() else None


def _free_ports(count: int) -> list[int]:
    """Return *count* different free ports; other processes may still take them before the brokers start."""
    ports: dict[int, None] = {}
    while len(ports) < count:
        ports[free_port()] = None
    return list(ports)
