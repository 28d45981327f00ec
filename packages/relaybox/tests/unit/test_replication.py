"""The number of replicas of a topic, by the settings and by the live brokers."""

from types import SimpleNamespace

import pytest
from relaybox.settings import RelaySettings
from relaybox.topics import (
    Brokers,
    Replication,
    ReplicationImpossible,
    new_partitions,
    new_topic,
    plan_replication,
    warn_about_few_brokers,
)
from structlog.testing import capture_logs


def brokers(live: int, known: int | None = None) -> Brokers:
    return Brokers(live=frozenset(range(1, live + 1)), known=frozenset(range(1, (known or live) + 1)))


@pytest.mark.parametrize(
    ("live", "known", "replicas", "min_isr"),
    [(1, 1, 1, 1), (2, 2, 2, 1), (3, 3, 3, 2), (9, 9, 3, 2), (2, 3, 3, 2), (1, 2, 2, 1)],
)
def test_defaults_follow_the_number_of_brokers(live: int, known: int, replicas: int, min_isr: int) -> None:
    plan = plan_replication(Replication(), brokers(live, known))
    assert (plan.replicas, plan.min_isr) == (replicas, min_isr)


def test_settings_override_the_number_of_brokers() -> None:
    wanted = Replication.of(RelaySettings(topic_replication=5, topic_min_isr=3))
    plan = plan_replication(wanted, brokers(9))
    assert (plan.replicas, plan.min_isr) == (5, 3)
    assert plan_replication(Replication(replicas=2), brokers(3)).min_isr == 1
    assert plan_replication(Replication(min_isr=1), brokers(3)).replicas == 3


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Replication(replicas=3), "RELAY_TOPIC_REPLICATION=3, but only the brokers 1, 2 are up"),
        (Replication(min_isr=3), "RELAY_TOPIC_MIN_ISR=3, but a topic gets 2 replicas on the brokers 1, 2"),
    ],
)
def test_error_names_settings_that_cannot_be_fulfilled(wanted: Replication, words: str) -> None:
    with pytest.raises(ReplicationImpossible, match=words):
        plan_replication(wanted, brokers(2))


def test_topic_is_assigned_to_absent_brokers_behind_live_ones() -> None:
    plan = plan_replication(Replication(), brokers(2, 3))
    topic = new_topic("events", 3, plan)
    assert topic.replica_assignment == [[1, 2, 3], [2, 1, 3], [1, 2, 3]]
    assert topic.config == {"min.insync.replicas": "2"}


def test_kafka_assigns_replicas_if_enough_brokers_are_live() -> None:
    topic = new_topic(
        "markers", 8, plan_replication(Replication(), brokers(4)), {"cleanup.policy": "compact"}
    )
    assert (topic.num_partitions, topic.replication_factor) == (8, 3)
    assert topic.config == {"min.insync.replicas": "2", "cleanup.policy": "compact"}


def test_remedy_names_the_brokers_that_are_down() -> None:
    assert "start broker 3;" in plan_replication(Replication(), brokers(2, 3)).remedy
    assert plan_replication(Replication(), brokers(3)).remedy == ""


@pytest.mark.parametrize(("live", "assigned"), [(3, None), (2, [[1, 2, 3], [2, 1, 3]])])
def test_growing_topic_keeps_its_replication_without_a_broker(
    live: int, assigned: list[list[int]] | None
) -> None:
    held = SimpleNamespace(partitions={number: SimpleNamespace(replicas=[3, 1, 2]) for number in range(8)})
    grown = new_partitions("markers", held, 10, brokers(live, 3))
    assert grown.new_total_count == 10
    assert (grown.replica_assignment or None) == assigned


@pytest.mark.parametrize(
    ("addresses", "wanted", "warned"),
    [("a:1,b:1,c:1", None, 1), ("a:1,b:1", None, 0), ("a:1,b:1,c:1", 2, 0)],
)
def test_fewer_brokers_than_addresses_cause_a_warning(
    addresses: str, wanted: int | None, warned: int
) -> None:
    replication = Replication(replicas=wanted)
    with capture_logs() as logs:
        warn_about_few_brokers(addresses, ["events"], plan_replication(replication, brokers(2)), replication)
    assert [line["log_level"] for line in logs] == ["warning"] * warned
