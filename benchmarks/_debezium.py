"""Run Debezium's PostgreSQL connector with its outbox event router, in Kafka Connect standalone."""

import asyncio
import json
import os
import shutil
import signal
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from relaybox.local import LocalPostgres, free_port
from relaybox.local._kafka_programs import cache_dir, java_program
from relaybox.local._maven import fetch_pinned, read_manifest
from relaybox.settings import KafkaSettings, PostgresSettings, RelaySettings, load_settings

__all__ = ("Connect", "connect_jars")

VERSION: Final = "3.6.1.Final"
#: Names and hashes of the jars: the connector, Kafka Connect 4.3.0 (for which the connector is built),
#: slf4j-simple, and their dependencies.
_MANIFEST: Final = Path(__file__).with_name(f"debezium-{VERSION}.sha256")
_NAME: Final = "outbox"
_READY_S: Final = 180.0
_LOOK_S: Final = 0.5
#: The JVM options that Kafka's start script sets for Connect.
_JVM: Final = ("-Xms256M", "-Xmx2G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20")
_TEXT: Final = "org.apache.kafka.connect.storage.StringConverter"
_WORKER: Final[dict[str, Any]] = {
    "key.converter": _TEXT,
    "value.converter": _TEXT,
    "header.converter": _TEXT,
    "plugin.discovery": "only_scan",
    "producer.linger.ms": 2,
    "producer.batch.size": 1_000_000,
}
_CONNECTOR: Final[dict[str, Any]] = {
    "name": _NAME,
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "tasks.max": 1,
    "plugin.name": "pgoutput",
    "publication.autocreate.mode": "filtered",
    "topic.prefix": "bench",
    "table.include.list": "public.bench_debezium",
    "snapshot.mode": "no_data",
    "skipped.operations": "u,d,t",
    "tombstones.on.delete": "false",
    "poll.interval.ms": 5,
    "max.batch.size": 8_192,
    "max.queue.size": 32_768,
    "transforms": "outbox",
    "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
    "transforms.outbox.route.topic.replacement": "${routedByValue}",
    "transforms.outbox.table.fields.additional.placement": "type:header:ce_type",
}


def connect_jars(*, fetch: bool) -> list[Path]:
    """Return the jars, and download missing and damaged ones.

    Args:
        fetch: Whether to download; if False, an empty list is returned unless the cache has all jars.

    Raises:
        ServerNotAvailable: A jar cannot be downloaded.
    """
    home = cache_dir(Path(tempfile.gettempdir())) / "debezium" / VERSION
    files = read_manifest(_MANIFEST.read_text())

    def on_start(_count: int) -> None:
        if not fetch:
            raise _JarsMissing

    with suppress(_JarsMissing):
        return asyncio.run(fetch_pinned(files, home, on_start=on_start, on_file=lambda: None))
    return []


class _JarsMissing(Exception):
    """Raised before a download that the caller of :func:`connect_jars` did not ask for."""


class Connect:
    """One Connect process with one connector; the process keeps running while the connector is stopped."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.pid = process.pid
        self._process = process
        self._url = f"http://127.0.0.1:{port}/connectors/{_NAME}"

    @classmethod
    @asynccontextmanager
    async def started(cls, postgres: LocalPostgres, jars: list[Path]) -> AsyncGenerator["Connect"]:
        """Run Connect during a ``with`` block, which begins when the connector runs and its slot exists."""
        place = Path(tempfile.mkdtemp(prefix="relaybox-connect-"))
        port = free_port()
        worker, connector = _write_settings(place, postgres, port)
        java = await java_program("4.1.0")
        class_path = os.pathsep.join(map(str, jars))
        argv = [str(java), *_JVM, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", class_path]
        argv += ["org.apache.kafka.connect.cli.ConnectStandalone", str(worker), str(connector)]
        with (place / "connect.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(*argv, stdout=log, stderr=log)
        connect = cls(process, port)
        try:
            await connect.until("RUNNING", place / "connect.log")
            yield connect
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.wait()
            shutil.rmtree(place, ignore_errors=True)

    async def stop(self) -> None:
        """Stop the connector, which closes its connections to PostgreSQL."""
        await asyncio.to_thread(self._ask, "PUT", "/stop")
        await self.until("STOPPED")

    async def resume(self) -> None:
        """Resume the connector, which continues at the WAL position where it stopped."""
        await asyncio.to_thread(self._ask, "PUT", "/resume")
        await self.until("RUNNING")

    async def until(self, state: str, log: Path | None = None) -> None:
        """Wait until the connector is in *state*; for RUNNING, until its task is RUNNING, too."""
        until_s = time.monotonic() + _READY_S
        while time.monotonic() < until_s and self._process.returncode is None:
            told = await asyncio.to_thread(self._ask, "GET", "/status")
            states = {told.get("connector", {}).get("state")} | {
                one["state"] for one in told.get("tasks", [])
            }
            if states == {state} and (state == "STOPPED" or told["tasks"]):
                return
            await asyncio.sleep(_LOOK_S)
        tail = await asyncio.to_thread(log.read_text) if log else ""
        raise SystemExit(f"Debezium did not become {state}\n{tail[-3_000:]}")

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        request = urllib.request.Request(self._url + path, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.URLError:  # Connect does not listen yet, or does not have the connector yet
            return {}


def _write_settings(place: Path, postgres: LocalPostgres, port: int) -> tuple[Path, Path]:
    """Write the settings files of Kafka Connect and the connector; README.md explains the settings."""
    worker = {
        **_WORKER,
        "bootstrap.servers": load_settings(KafkaSettings).bootstrap_servers,
        "listeners": f"http://127.0.0.1:{port}",
        "offset.storage.file.filename": place / "offsets",
        "producer.compression.type": load_settings(RelaySettings).compression,
    }
    connector = {
        **_CONNECTOR,
        "database.hostname": postgres.host,
        "database.port": postgres.port,
        "database.user": postgres.superuser,
        "database.password": postgres.superuser_password,
        "database.dbname": load_settings(PostgresSettings).db,
    }
    files = (place / "worker.properties", place / "connector.properties")
    for path, values in zip(files, (worker, connector), strict=True):
        path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    return files
