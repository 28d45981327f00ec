"""How the control topic is created, and how long its requests may take; the brokers are imitated."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, Self
from uuid import UUID

import pytest
from relaybox.relay import _transaction
from relaybox.relay._transaction import Markers

TOPIC = "relaybox-markers-" + "0" * 32
#: In the past of any monotonic clock.
PAST = -1.0


class Admin:
    """An admin client of one broker; has the requests that it gets."""

    def __init__(self, topics: dict[str, Any]) -> None:
        self.topics = topics
        self.created: list[Any] = []
        self.limits_s: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close nothing."""

    def list_topics(self, timeout: float) -> Any:
        self.limits_s.append(timeout)
        return SimpleNamespace(topics=self.topics, brokers={1: None})

    def create_topics(self, topics: Sequence[Any]) -> Mapping[str, Future[None]]:
        self.created += topics
        done = Future[None]()
        done.set_result(None)
        return {TOPIC: done}

    create_partitions = create_topics


Make = Callable[..., tuple[Markers, Admin]]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make the markers of a cluster with *topics*; requests may take until *deadline_s*."""

    def make(topics: dict[str, Any] | None = None, deadline_s: float = float("inf")) -> tuple[Markers, Admin]:
        admin = Admin(topics or {})
        monkeypatch.setattr(_transaction, "AdminClient", lambda _settings: admin)
        connection = {"bootstrap.servers": "localhost:1"}
        return Markers(connection, UUID(int=0), deadline=lambda: deadline_s), admin

    return make


@pytest.mark.parametrize(("lanes", "partitions"), [([0], 8), ([7], 8), ([3, 8], 9)])
def test_new_control_topic_has_eight_partitions_or_one_per_lane(
    make: Make, lanes: list[int], partitions: int
) -> None:
    markers, admin = make()
    for _ in range(2):
        markers.ensure_partitions(lanes)
    [created] = admin.created
    assert (created.topic, created.num_partitions) == (TOPIC, partitions)
    assert created.config["cleanup.policy"] == "compact"


def test_control_topic_with_a_partition_per_lane_is_not_changed(make: Make) -> None:
    replicas = dict.fromkeys(range(8), SimpleNamespace(replicas=[1, 2]))
    markers, admin = make({TOPIC: SimpleNamespace(topic=TOPIC, partitions=replicas)})
    markers.ensure_partitions([0])
    assert admin.created == []


@pytest.mark.guarantee("G27")
@pytest.mark.parametrize(("deadline_s", "limit_s"), [(float("inf"), 4.0), (PAST, 0.1)])
def test_request_of_the_control_topic_ends_at_the_deadline(
    make: Make, deadline_s: float, limit_s: float
) -> None:
    markers, admin = make(deadline_s=deadline_s)
    markers.ensure_partitions([0])
    assert admin.limits_s == [limit_s]
