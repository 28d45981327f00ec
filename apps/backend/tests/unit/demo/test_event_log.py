"""The demo accepts events of one chain in order, and reports all others as faults."""

from uuid import UUID, uuid4

import pytest
from backend.demo import StepMissed
from backend.demo._events import EventLog, Published
from relaybox_types.envelope import build_event_envelope
from shared_types.workspace import WorkspaceEvent

CHAIN = uuid4()


@pytest.fixture
def log() -> EventLog:
    return EventLog(name="node 7", correlation_id=CHAIN, limit_s=0.01)


def publish(log: EventLog, *versions: int, chain: UUID = CHAIN) -> None:
    for version in versions:
        event = build_event_envelope(
            event_type=WorkspaceEvent.NODE_UPDATED,
            aggregate_type="WORKSPACE_NODE",
            aggregate_id="7",
            version=version,
            correlation_id=chain,
        )
        log.add_published(Published(event=event, topic="t", partition=0, offset=version))


def stream(log: EventLog, *versions: int) -> None:
    for version in versions:
        log.add_streamed(version, {"event_type": "node.updated", "version": version})


async def test_published_events_of_one_chain_in_order_are_accepted(log: EventLog) -> None:
    publish(log, 1, 2, 2, 3)
    assert [one.event.version for one in await log.wait_published(3)] == [1, 2, 3]
    assert [one.event.version for one in await log.wait_published(2)] == [1, 2]


@pytest.mark.parametrize("versions", [(1, 3, 4), (2, 1, 3), (2, 3, 4)], ids=["gap", "order", "beginning"])
async def test_gap_or_wrong_order_on_kafka_misses_the_step(log: EventLog, versions: tuple[int, ...]) -> None:
    publish(log, *versions)
    with pytest.raises(StepMissed, match=rf"version {versions[1]} after version|2 after version 0"):
        await log.wait_published(3)


async def test_event_of_another_chain_misses_the_step(log: EventLog) -> None:
    publish(log, 1)
    publish(log, 2, chain=uuid4())
    with pytest.raises(StepMissed, match=f"not {CHAIN}"):
        await log.wait_published(2)


async def test_event_that_does_not_come_in_time_is_named(log: EventLog) -> None:
    publish(log, 1)
    with pytest.raises(StepMissed, match=r"node 7: 2 events on Kafka expected, not received in 0\.01 s"):
        await log.wait_published(2)
    with pytest.raises(StepMissed, match=r"node 7: node\.trashed on the event stream expected"):
        await log.wait_streamed(WorkspaceEvent.NODE_SOFT_DELETED)


async def test_gap_on_the_event_stream_misses_the_step(log: EventLog) -> None:
    stream(log, 1, 2)
    assert (await log.wait_streamed(WorkspaceEvent.NODE_UPDATED))["version"] == 1
    assert (await log.wait_streamed(WorkspaceEvent.NODE_UPDATED, after=1))["version"] == 2
    await log.wait_streamed_count(2)
    stream(log, 4)
    with pytest.raises(StepMissed, match="the event stream sent version 4 after version 2"):
        await log.wait_streamed_count(3)
