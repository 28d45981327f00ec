"""A real Kafka broker of one's own: KRaft, kept in a directory, reached over 127.0.0.1."""

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
from relaybox.local._directory import DirectoryLock, disk_full_or, require_free_space
from relaybox.local._errors import DataDirectoryOfAnotherVersion, ServerDidNotStart
from relaybox.local._kafka_programs import cache_dir, java_program, kafka_jars
from relaybox.local._ports import LOOPBACK, free_port, require_free_port
from relaybox.local._process import ServerProcess, end_orphans, processes_in

_START_S = 90.0
_STOP_S = 8.0
_METADATA_S = 1.0
_READY_PAUSE_S = 0.05
_LOG_BYTES_MAX = 32 * 2**20
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
#: Further options for every JVM; the launcher puts them before ours, which therefore win.
_JAVA_OPTIONS = "JDK_JAVA_OPTIONS"
#: One node: nothing to replicate to. A few partitions of the internal topics keep start and stop short.
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
    # A dead relay's open transaction holds back read_committed consumers; the default looks every 10 s.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # The new start of a killed broker waits until the session of the old one is over: 9 s by default.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "log.retention.hours": "168",
    "log.retention.bytes": str(2**30),
    "log.segment.bytes": str(128 * 2**20),
    # 128 MiB by default, a third of this heap.
    "log.cleaner.dedupe.buffer.size": str(16 * 2**20),
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterMember:
    """The place of one broker in a cluster; every node is a broker and a controller that votes."""

    #: From 1 up.
    node_id: int
    #: Port of each node's controller by its id; the same for all members.
    controller_ports: Mapping[int, int]
    #: Kafka's form: 16 bytes in URL-safe base64 without padding.
    cluster_id: str


class LocalKafka:
    """One Kafka broker on a data directory; topics and messages survive a restart.

    It listens on 127.0.0.1 only, creates no topic by itself, and lives in about 400 MB. The jars are fetched
    once into ``RELAYBOX_CACHE_DIR``, else the user's cache directory, else *data_dir*.
    """

    host: str = LOOPBACK

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
    ) -> None:
        """Describe the broker; nothing happens before :meth:`start`.

        *port* None takes a free one at the first start and keeps it as long as this object lives.
        *listeners* are further ones, ``SSL`` or ``SASL_SSL`` with a port; *properties* the broker's settings
        that these need. *member* None is a cluster of this broker alone; *heap_mib* the JVM's largest heap.
        """
        self.data_dir = data_dir.resolve()
        self.version = version
        self.port = port or 0
        self._port_is_given = port is not None
        self.listeners = listeners
        self._properties = properties
        self._member = member
        self._heap_mib = heap_mib
        self._lock: DirectoryLock | None = None
        self._process: ServerProcess | None = None

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process else "stopped"
        return f"<LocalKafka {self.version} on {self.host}:{self.port} [{state} | {self.data_dir}]>"

    async def start(self) -> None:
        """Start the broker and return when it answers; one a killed starter left behind is stopped first.

        Raises:
            DataDirectoryOfAnotherVersion: the directory was written by a newer Kafka.
            DataDirectoryInUse: another living process runs a broker on it.
            DataDirectoryNotUsable: it cannot be made or written.
            DiskFull: its disk has no room.
            PortTaken: *port* was given and somebody listens there.
            ServerNotAvailable: the jars or a Java runtime cannot be had.
            ServerDidNotStart: anything else, with the last lines of the broker's log.
        """
        make_directory(self.data_dir, mode=0o755)
        lock = DirectoryLock(self.data_dir)
        lock.acquire()
        try:
            await self._start()
        except BaseException:
            if self._process is not None:
                self._process.kill()
                self._process = None
            lock.release()
            raise
        self._lock = lock

    async def stop(self) -> None:
        """Stop the broker in order; SIGKILL after 8 s."""
        if self._process is not None:
            await self._process.stop(signal.SIGTERM, stop_s=_STOP_S)
        self._forget()

    def kill(self) -> None:
        """SIGKILL the broker, as a power cut would."""
        if self._process is not None:
            self._process.kill()
        self._forget()

    def pause(self) -> None:
        """Freeze the broker (SIGSTOP): connections stay open and nothing answers."""
        self._running().signal_tree(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo :meth:`pause`."""
        self._running().signal_tree(signal.SIGCONT)

    async def wait(self) -> int:
        """Return the broker's exit code once it has ended by itself."""
        return await self._running().wait()

    @property
    def is_started(self) -> bool:
        """Whether :meth:`start` has returned, and neither :meth:`stop` nor :meth:`kill` was called since."""
        return self._lock is not None

    @property
    def place(self) -> Path:
        """Where the files are: *data_dir*."""
        return self.data_dir

    @property
    def log(self) -> Path:
        """The broker's log file, warnings and worse; it starts anew past 32 MiB."""
        return self.data_dir / "kafka.log"

    def settings(self) -> dict[str, str]:
        """Return the environment that points the product at this broker (contract, section 7)."""
        return {"KAFKA_HOST": self.host, "KAFKA_PORT": str(self.port)}

    @property
    def _home(self) -> Path:
        return self.data_dir / "broker"

    def _running(self) -> ServerProcess:
        assert self._process is not None, "the broker was not started"
        return self._process

    def _forget(self) -> None:
        self._process = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def _start(self) -> None:
        make_directory(self._home, mode=0o755)
        self._require_version()
        # We hold the lock, so a broker that still runs in there has lost its starter.
        await end_orphans(processes_in(self._home, "java"), signal.SIGTERM, stop_s=_STOP_S)
        if self._port_is_given:
            require_free_port(self.port, setting="KAFKA_PORT")
        self.port = self.port or free_port()
        require_free_space(self.data_dir)
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES_MAX:
            self.log.unlink()
        jars = await kafka_jars(self.version, cache_dir(self.data_dir))
        java = await java_program(self.version)
        properties = self._write_properties()
        try:
            if not (self._home / "data" / "meta.properties").exists():
                await self._format(java, jars, properties)
            self._process = self._launch(java, jars, ["kafka.Kafka", str(properties)])
            await self._process.until_ready("Kafka", self._is_ready, start_s=_START_S, pause_s=_READY_PAUSE_S)
        except ServerDidNotStart as error:
            raise disk_full_or(error, self.data_dir) from None
        self._version_file.write_text(f"{self.version}\n")

    @property
    def _version_file(self) -> Path:
        return self.data_dir / "kafka-version"

    def _require_version(self) -> None:
        """Kafka reads what an older one wrote, never what a newer one did."""
        found = self._version_file.read_text().strip() if self._version_file.exists() else self.version
        if _release(found) > _release(self.version):
            raise DataDirectoryOfAnotherVersion(
                server="Kafka",
                path=self.data_dir,
                found=found,
                needed=self.version,
                remedy=f"run Kafka {found} or newer, or set KAFKA_HOST to a broker of your own",
            )

    @property
    def _node_id(self) -> int:
        return self._member.node_id if self._member else 1

    def _write_properties(self) -> Path:
        # A static quorum, for 3.7 and 4.1 alike: the controllers may then move to other ports.
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
        await self._launch(java, jars, tool).finish("Kafka", within_s=_START_S)

    def _launch(self, java: Path, jars: Sequence[Path], command: Sequence[str]) -> ServerProcess:
        class_path = os.pathsep.join(map(str, jars))
        return ServerProcess(
            [str(java), *_JVM, f"-Xmx{self._heap_mib}m", "-cp", class_path, *command],
            log=self.log,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", **_inherited_java_options()},
            cwd=self._home,
            parent_death=signal.SIGTERM,
        )

    async def _is_ready(self) -> bool:
        # librdkafka writes refused connections to stderr unless told otherwise.
        client = AdminClient({"bootstrap.servers": f"{self.host}:{self.port}", "log_level": 0})
        try:
            metadata = await asyncio.to_thread(client.list_topics, timeout=_METADATA_S)
        except KafkaException:
            return False
        # In a cluster the others may be there before this one is.
        return self._node_id in metadata.brokers


def new_cluster_id() -> str:
    """Return a cluster id in Kafka's form: 16 bytes in URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _inherited_java_options() -> dict[str, str]:
    """What the java launcher adds by itself, if somebody has set it."""
    return {_JAVA_OPTIONS: given} if (given := os.environ.get(_JAVA_OPTIONS)) else {}


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
