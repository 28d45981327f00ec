"""Several real Kafka brokers that form one cluster, for tests of what happens when some of them fail."""

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
#: One broker alone on the machine is declared dead after 2 s; several share its cores and stall each other.
_SESSION_MS = 4_000


class LocalKafkaCluster:
    """A cluster of brokers on 127.0.0.1, each with a directory, a log and ports of its own.

    Every node is a broker and a controller that votes, so three brokers work on without one of them, and no
    two without a third. New topics and the internal ones have as many replicas as there are brokers, three at
    most, and ``min.insync.replicas`` of one less. An idle broker takes about 180 MiB.

    :attr:`brokers` are started, stopped, killed, paused and resumed one by one; the methods of the cluster
    do so with all of them.
    """

    def __init__(
        self,
        brokers: int,
        data_dir: Path,
        *,
        version: str = "4.1.0",
        properties: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Describe the cluster; nothing is started or written before :meth:`start`.

        Args:
            brokers: How many there are, 1 to 9; they are the nodes 1, 2, …
            data_dir: Broker *n* keeps its data in ``broker-n`` in it.
            version: Of Kafka, for all of them.
            properties: Settings of every broker, which win over the cluster's own.
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
        cluster_id = self._known_id() or new_cluster_id()
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
        """Start the brokers that are not started; return when each of them answers.

        Raises:
            LocalError: A broker did not start, as for :meth:`LocalKafka.start`; all of them are killed then.
        """
        make_directory(self.data_dir, mode=0o755)
        self._id_file.write_text(f"{self._cluster_id}\n")
        # At the same time: none of them is ready before most of them vote.
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
        """Stop all brokers in order; SIGKILL after 8 s for those that cannot find a leader any more."""
        await asyncio.gather(*(broker.stop() for broker in self.brokers))

    def kill(self) -> None:
        """SIGKILL all brokers, as a power cut would."""
        for broker in self.brokers:
            broker.kill()

    def pause(self) -> None:
        """Freeze all started brokers (SIGSTOP): connections stay open and nothing answers."""
        for broker in self.brokers:
            if broker.is_started:
                broker.pause()

    def resume(self) -> None:
        """Undo :meth:`pause`."""
        for broker in self.brokers:
            if broker.is_started:
                broker.resume()

    def settings(self) -> dict[str, str]:
        """Return the environment that points the product at this cluster (contract, section 7)."""
        return {"KAFKA_HOST": ",".join(f"{broker.host}:{broker.port}" for broker in self.brokers)}

    @property
    def _id_file(self) -> Path:
        return self.data_dir / "cluster-id"

    def _known_id(self) -> str | None:
        return self._id_file.read_text().strip() if self._id_file.exists() else None


def _free_ports(count: int) -> list[int]:
    """Return *count* different ports: none of them is bound before the brokers start."""
    ports: dict[int, None] = {}
    while len(ports) < count:
        ports[free_port()] = None
    return list(ports)
