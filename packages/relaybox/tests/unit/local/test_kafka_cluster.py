"""Configuration of a local Kafka cluster."""

from pathlib import Path

from relaybox.local import LocalKafkaCluster


def test_each_broker_has_its_own_directory_and_ports(tmp_path: Path) -> None:
    cluster = LocalKafkaCluster(3, tmp_path)

    assert [broker.log.parent.name for broker in cluster.brokers] == ["broker-1", "broker-2", "broker-3"]
    hosts = cluster.settings()["KAFKA_HOST"].split(",")
    assert hosts == [f"127.0.0.1:{broker.port}" for broker in cluster.brokers]
    assert len(set(hosts)) == 3
    assert list(tmp_path.iterdir()) == []
