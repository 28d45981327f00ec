"""Run a local Kafka broker (KRaft) on 127.0.0.1, with its data in a directory."""

import asyncio
import base64
import os
import signal
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from relaybox.local._account import make_directory
from relaybox.local._errors import DataDirectoryOfAnotherVersion
from relaybox.local._kafka_programs import cache_dir, java_program, kafka_jars
from relaybox.local._ports import free_port
from relaybox.local._process import ServerProcess
from relaybox.local._server import LocalServer

_START_S = 90.0
_METADATA_S = 1.0
_READY_PAUSE_S = 0.05
_JVM = (
    "-Xms128m",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Djava.net.preferIPv4Stack=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
)
#: Environment variable with options for every JVM; the options of this module take precedence.
_JAVA_OPTIONS = "JDK_JAVA_OPTIONS"
#: Settings of a single broker. Internal topics have few partitions, so that the broker starts and stops fast.
_SETTINGS = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL",
    "auto.create.topics.enable": "false",
    "num.partitions": "4",
    "default.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    # The open transaction of a dead relay blocks read_committed consumers; the default interval is 10 s.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # A restarted broker waits for the end of its killed predecessor's session; the default is 9 s.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "log.retention.hours": "168",
    "log.retention.bytes": str(2**30),
    "log.segment.bytes": str(128 * 2**20),
    # The default of 128 MiB would be a third of the heap.
    "log.cleaner.dedupe.buffer.size": str(16 * 2**20),
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterMember:
    """Identity of one node in a cluster; each node is a broker and a voting controller."""

    #: Kafka's ``node.id``; the first node has 1.
    node_id: int
    #: Port of the controller of each node, by node id; all members get the same mapping.
    controller_ports: Mapping[int, int]
    #: Id of the cluster, equal for all members: 16 bytes in URL-safe base64 without padding.
    cluster_id: str


class LocalKafka(LocalServer):
    """One Kafka broker on a data directory; topics and messages survive a restart.

    The broker listens on 127.0.0.1 only, does not create topics automatically, and uses about 400 MB of
    memory. Its jars are downloaded once, into the directory that the environment variable
    ``RELAYBOX_CACHE_DIR`` names. Without the variable, they are stored in the user's cache directory, or in
    *data_dir* if the user's cache directory cannot be written.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        version: str = "4.1.0",
        port: int | None = None,
        listeners: Mapping[str, int] = MappingProxyType({}),
        properties: Mapping[str, str] = MappingProxyType({}),
        member: ClusterMember | None = None,
        heap_mib: int = 400,
        java_options: Sequence[str] = (),
    ) -> None:
        """Configure the broker; :meth:`start` starts it.

        Args:
            data_dir: Directory of data, configuration and log.
            version: Version of Kafka; this package must have the file ``kafka-<version>.sha256``.
            port: None selects a free port at the first start of this object, and keeps the port after that.
            listeners: Ports of additional listeners by protocol, ``SSL`` or ``SASL_SSL``.
            properties: Additional settings of the broker by name. They replace the defaults of this class,
                but not the node id, the listeners, the voters and the log directory.
            member: Identity of this broker in a cluster; None for a cluster of this broker alone.
            heap_mib: Maximum heap size of the JVM in MiB.
            java_options: Additional options of the JVM.
        """
        super().__init__(data_dir, port)
        self.version = version
        self.listeners = listeners
        self._properties = properties
        self._member = member
        self._heap_mib = heap_mib
        self._java_options = tuple(java_options)

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process else "stopped"
        return f"<LocalKafka {self.version} on {self.host}:{self.port} [{state} | {self.data_dir}]>"

    @property
    def log(self) -> Path:
        """The log file, with warnings and errors; removed at a start if it is larger than 32 MiB."""
        return self.data_dir / "kafka.log"

    def settings(self) -> dict[str, str]:
        """Return the environment variables with which services connect to this broker."""
        return {"KAFKA_HOST": self.host, "KAFKA_PORT": str(self.port)}

    @property
    def _home(self) -> Path:
        return self.data_dir / "broker"

    def _prepare_directory(self) -> None:
        make_directory(self.data_dir, mode=0o755)

    async def _launch_server(self) -> None:
        make_directory(self._home, mode=0o755)
        self._require_version()
        await self._end_orphans(self._home, "java")
        self._require_resources(port_setting="KAFKA_PORT")
        jars = await kafka_jars(self.version, cache_dir(self.data_dir))
        java = await java_program(self.version)
        properties = self._write_properties()
        if not (self._home / "data" / "meta.properties").exists():
            await self._format(java, jars, properties)
        self._process = self._launch(java, jars, ["kafka.Kafka", str(properties)])
        await self._process.until_ready("Kafka", self._is_ready, start_s=_START_S, pause_s=_READY_PAUSE_S)
        self._version_file.write_text(f"{self.version}\n")

    @property
    def _version_file(self) -> Path:
        return self.data_dir / "kafka-version"

    def _require_version(self) -> None:
        """Check that no newer version of Kafka wrote the directory; data of an older version can be read.

        Only the first two numbers of the versions are compared.

        Raises:
            DataDirectoryOfAnotherVersion: A newer version wrote the directory.
        """
        found = self._version_file.read_text().strip() if self._version_file.exists() else self.version
        if _release(found) > _release(self.version):
            raise DataDirectoryOfAnotherVersion(
                server="Kafka",
                path=self.data_dir,
                found=found,
                needed=self.version,
                remedy=f"run Kafka {found} or newer, or set KAFKA_HOST to an existing broker",
            )

    @property
    def _node_id(self) -> int:
        return self._member.node_id if self._member else 1

    def _write_properties(self) -> Path:
        # Static voters work with Kafka 3.7 and 4.1, and the controllers' ports may change at each start.
        controllers = self._member.controller_ports if self._member else {self._node_id: free_port()}
        advertised = ",".join(
            f"{name}://{self.host}:{port}"
            for name, port in {"PLAINTEXT": self.port, **self.listeners}.items()
        )
        values = {
            **_SETTINGS,
            **self._properties,
            "node.id": str(self._node_id),
            "listeners": f"{advertised},CONTROLLER://{self.host}:{controllers[self._node_id]}",
            "advertised.listeners": advertised,
            "controller.quorum.voters": ",".join(
                f"{node}@{self.host}:{port}" for node, port in controllers.items()
            ),
            "log.dirs": str(self._home / "data"),
        }
        path = self.data_dir / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        return path

    async def _format(self, java: Path, jars: Sequence[Path], properties: Path) -> None:
        cluster_id = self._member.cluster_id if self._member else new_cluster_id()
        tool = [
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster_id}",
            "--config",
            str(properties),
        ]
        await self._launch(java, jars, tool).finish("Kafka's StorageTool", within_s=_START_S)

    def _launch(self, java: Path, jars: Sequence[Path], command: Sequence[str]) -> ServerProcess:
        class_path = os.pathsep.join(map(str, jars))
        return ServerProcess(
            [
                *(str(java), *_JVM, f"-Xmx{self._heap_mib}m", *self._java_options),
                *("-cp", class_path, *command),
            ],
            log=self.log,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", **_inherited_java_options()},
            cwd=self._home,
            parent_death=signal.SIGTERM,
        )

    async def _is_ready(self) -> bool:
        # log_level 0: by default librdkafka logs each refused connection to stderr.
        client = AdminClient({"bootstrap.servers": f"{self.host}:{self.port}", "log_level": 0})
        try:
            metadata = await asyncio.to_thread(client.list_topics, timeout=_METADATA_S)
        except KafkaException:
            return False
        # In a cluster, other brokers may be ready before this one.
        return self._node_id in metadata.brokers


def new_cluster_id() -> str:
    """Generate a cluster id in Kafka's format: 16 bytes in URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _inherited_java_options() -> dict[str, str]:
    """Return the variable ``JDK_JAVA_OPTIONS`` of this process with its value; empty if it is not set."""
    return {_JAVA_OPTIONS: given} if (given := os.environ.get(_JAVA_OPTIONS)) else {}


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
