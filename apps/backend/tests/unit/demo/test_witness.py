"""What the demo takes for a story that went well, and what it does not."""

from uuid import UUID, uuid4

import pytest
from backend.demo import StepMissed
from backend.demo._journal import Published
from backend.demo.club import Witness
from relaybox_types.envelope import build_event_envelope
from shared_types.workspace import WorkspaceEvent

NODE = "7f0d5b0e-7c63-4f6e-8f4a-1f2d0c9a4b11"


@pytest.fixture
def witness() -> Witness:
    return Witness(uuid4(), wait_s=0.01)


def publish(witness: Witness, *versions: int, chain: UUID | None = None) -> None:
    for version in versions:
        event = build_event_envelope(
            event_type=WorkspaceEvent.NODE_UPDATED,
            aggregate_type="WORKSPACE_NODE",
            aggregate_id=NODE,
            version=version,
            correlation_id=chain or witness.correlation_id,
        )
        witness.journal(NODE).publish(Published(event=event, topic="t", partition=0, offset=version))


def tell(witness: Witness, *versions: int) -> None:
    for version in versions:
        witness.live.tell(version, {"event_type": "node.updated", "version": version})


async def test_events_of_one_chain_in_order_are_what_was_hoped_for(witness: Witness) -> None:
    publish(witness, 1, 2, 3)
    assert [one.event.version for one in await witness.published(NODE, 3)] == [1, 2, 3]
    assert [one.event.version for one in await witness.published(NODE, 2)] == [1, 2]


@pytest.mark.parametrize("versions", [(1, 3, 4), (2, 1, 3), (2, 3, 4)], ids=["gap", "order", "beginning"])
async def test_a_gap_or_another_order_on_the_topic_is_a_step_missed(
    witness: Witness, versions: tuple[int, ...]
) -> None:
    publish(witness, *versions)
    with pytest.raises(
        StepMissed, match=rf"node {NODE}: Kafka gave version {versions[1]} after|version 2 after 0"
    ):
        await witness.published(NODE, 3)


async def test_an_event_of_another_chain_is_a_step_missed(witness: Witness) -> None:
    publish(witness, 1)
    publish(witness, 2, chain=uuid4())
    with pytest.raises(StepMissed, match=f"events of the chain {witness.correlation_id} expected"):
        await witness.published(NODE, 2)


async def test_what_does_not_come_in_time_is_named(witness: Witness) -> None:
    publish(witness, 1)
    with pytest.raises(StepMissed, match=f"2 events of node {NODE} on Kafka: not seen within 0.01 s"):
        await witness.published(NODE, 2)
    with pytest.raises(StepMissed, match=r"node\.trashed on the live stream: not seen"):
        await witness.told(WorkspaceEvent.NODE_SOFT_DELETED)


async def test_a_gap_on_the_live_stream_is_a_step_missed(witness: Witness) -> None:
    tell(witness, 1, 2)
    assert (await witness.told(WorkspaceEvent.NODE_UPDATED))["version"] == 1
    await witness.all_told(2)
    tell(witness, 4)
    with pytest.raises(StepMissed, match="the event stream gave version 4 after 2"):
        await witness.all_told(3)
    with pytest.raises(StepMissed, match="the event stream gave version 4 after 2"):
        await witness.told(WorkspaceEvent.NODE_UPDATED)
