"""Who hears of everything that happens in the story, and says whether it was as it should be."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from shared_types.workspace import WorkspaceEvent

from backend.demo._expect import require
from backend.demo._journal import Journal, Published

__all__ = ("Witness",)


class Witness:
    """What the topic has of each node, and the live stream of one; *wait_s* is how long anything may take."""

    def __init__(self, correlation_id: UUID, *, wait_s: float) -> None:
        self.correlation_id = correlation_id
        self.live = Journal()
        self.wait_s = wait_s
        self._journals: dict[str, Journal] = {}

    def journal(self, node_id: str) -> Journal:
        """What the topic has of a node."""
        return self._journals.setdefault(node_id, Journal())

    async def published(self, node_id: str, count: int) -> Sequence[Published]:
        """The first *count* events of a node, as soon as they are on the topic.

        Raises:
            StepMissed: they do not come, or not in order, or are not of this story's chain.
        """
        journal = self.journal(node_id)

        def look() -> Sequence[Published] | None:
            require(not journal.faults, f"node {node_id}: {'; '.join(journal.faults)}")
            # Without a fault they came in the order of their versions.
            found = [*journal.published.values()][:count]
            return found if len(found) == count else None

        found = await journal.until(f"{count} events of node {node_id} on Kafka", look, self.wait_s)
        chains = {one.event.correlation_id for one in found}
        require(
            chains == {self.correlation_id},
            f"node {node_id}: events of the chain {self.correlation_id} expected on Kafka, not of {chains}",
        )
        return found

    async def told(self, type_: WorkspaceEvent) -> Mapping[str, Any]:
        """The first event of a type, as soon as the live stream tells it.

        Raises:
            StepMissed: it does not, or there is a gap before.
        """

        def look() -> Mapping[str, Any] | None:
            return next((data for data in self._heard() if data["event_type"] == type_), None)

        return await self.live.until(f"{type_} on the live stream", look, self.wait_s)

    async def all_told(self, count: int) -> None:
        """Return when the live stream has told so many events.

        Raises:
            StepMissed: it does not, or with a gap.
        """

        def look() -> bool | None:
            return len(self._heard()) >= count or None

        await self.live.until(f"{count} events on the live stream", look, self.wait_s)

    def _heard(self) -> Collection[Mapping[str, Any]]:
        require(not self.live.faults, "; ".join(self.live.faults))
        return self.live.told.values()
