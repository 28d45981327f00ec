"""The local Kafka broker: persistence, refusals and messages."""

import os
import socket
import uuid
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from relaybox.local import (
    ChecksumMismatch,
    DataDirectoryInUse,
    DataDirectoryOfAnotherVersion,
    LocalKafka,
    PortTaken,
    ServerNotAvailable,
    free_port,
)

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.repository import serving, write_maven_settings


def client_settings(broker: LocalKafka) -> dict[str, str | int]:
    return {"bootstrap.servers": f"{broker.host}:{broker.port}", "log_level": 0}


def write(broker: LocalKafka, topic: str, value: str) -> None:
    with AdminClient(client_settings(broker)) as admin:
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(WAIT_S)
    producer = Producer({**client_settings(broker), "acks": "all"})
    producer.produce(topic, value)
    assert producer.flush(WAIT_S) == 0


def read(broker: LocalKafka, topic: str) -> str:
    consumer = Consumer(
        {**client_settings(broker), "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    try:
        message = consumer.poll(WAIT_S)
        assert message is not None
        assert message.error() is None
        return message.value().decode()
    finally:
        consumer.close()


async def test_stop_and_kill_keep_messages_and_port(place: Path, kafka_version: str) -> None:
    broker = LocalKafka(place / "kafka", version=kafka_version)
    await broker.start()
    try:
        before = broker.settings()
        write(broker, "kept", "42")
        await broker.stop()
        await broker.start()
        assert read(broker, "kept") == "42"
        broker.kill()
        await broker.start()
        assert read(broker, "kept") == "42"
        assert broker.settings() == before
    finally:
        await broker.stop()


async def test_java_options_of_the_environment_reach_the_broker(
    place: Path, kafka_version: str, monkeypatch
) -> None:
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -Dgiven=by-the-environment")
    broker = LocalKafka(place / "kafka", version=kafka_version)
    await broker.start()
    try:
        output = broker.log.read_text()
        assert "Picked up JDK_JAVA_OPTIONS: -XX:TieredStopAtLevel=1 -Dgiven=by-the-environment" in output
    finally:
        await broker.stop()


async def test_directory_in_use_is_refused_with_the_pid(kafka_server: LocalKafka) -> None:
    with pytest.raises(DataDirectoryInUse, match=f"process {os.getpid()}"):
        await LocalKafka(kafka_server.data_dir, version=kafka_server.version).start()


async def test_metadata_request_creates_no_topic(kafka_server: LocalKafka) -> None:
    name = f"unknown-{uuid.uuid4().hex}"
    Producer({**client_settings(kafka_server), "message.timeout.ms": 500}).produce(name, "lost")

    with AdminClient(client_settings(kafka_server)) as admin:
        assert name not in admin.list_topics(timeout=WAIT_S).topics


async def test_pause_and_resume_affect_the_broker(kafka_server, topic, until_frozen) -> None:
    kafka_server.pause()
    await until_frozen([kafka_server._running().pid])

    kafka_server.resume()
    with AdminClient(client_settings(kafka_server)) as admin:
        assert topic in admin.list_topics(timeout=WAIT_S).topics


async def test_port_in_use_names_its_process_and_the_setting(place: Path, kafka_version: str) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken) as refusal:
            await LocalKafka(place / "kafka", version=kafka_version, port=port).start()

    for word in (str(port), f"pid {os.getpid()}", "KAFKA_PORT"):
        assert word in str(refusal.value)


async def test_data_of_a_newer_kafka_is_refused(place: Path) -> None:
    (place / "kafka-version").write_text("5.2.0\n")

    with pytest.raises(DataDirectoryOfAnotherVersion) as refusal:
        await LocalKafka(place).start()

    for word in (str(place), "Kafka 5.2.0", "Kafka 4.1.0", "KAFKA_HOST"):
        assert word in str(refusal.value)


async def test_failed_download_of_jars_names_the_sources(place: Path, monkeypatch) -> None:
    monkeypatch.setenv("RELAYBOX_CACHE_DIR", str(place / "empty"))
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")  # no process listens on it
    monkeypatch.setenv("NO_PROXY", "")

    with pytest.raises(ServerNotAvailable) as refusal:
        await LocalKafka(place / "kafka").start()

    for word in ("org.apache.kafka:kafka_2.13:4.1.0", str(place / "empty"), "KAFKA_HOST", "KAFKA_PORT"):
        assert word in str(refusal.value)
    assert list((place / "empty").rglob("*.jar")) == []


async def test_jar_with_wrong_checksum_is_refused(place: Path, monkeypatch) -> None:
    monkeypatch.setenv("RELAYBOX_CACHE_DIR", str(place / "empty"))
    monkeypatch.setenv("HOME", str(place))
    with serving(lambda _path, _number: b"not the jar") as mirror:
        write_maven_settings(place, mirror)
        with pytest.raises(ChecksumMismatch) as refusal:
            await LocalKafka(place / "kafka").start()

    for word in (".jar", "SHA-256", "was deleted", "settings.xml"):
        assert word in str(refusal.value)
    assert list((place / "empty").rglob("*.jar")) == []


async def test_kafka_version_without_manifest_is_refused(place: Path) -> None:
    with pytest.raises(ServerNotAvailable, match=r"Kafka 4\.0\.9 .*only of 3\.7\.0, 4\.1\.0"):
        await LocalKafka(place / "kafka", version="4.0.9").start()
