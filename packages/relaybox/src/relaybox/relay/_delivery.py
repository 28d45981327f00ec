"""What a way of delivering to Kafka is, and what it answers."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID, uuid4

from relaybox.db import DedicatedConnection
from relaybox.relay._errors import LinkDown, RowFault
from relaybox.relay._lanes import Lane
from relaybox.relay._messages import Message

__all__ = ("Batch", "Delivery", "LaneBatch", "Outcome", "Prepared")


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows that are published together."""

    messages: Sequence[Message]
    lanes: frozenset[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneBatch(Batch):
    """One lane's rows, claimed under an id that Kafka learns in the same transaction."""

    batch_id: UUID = field(default_factory=uuid4)
    #: Its row in ``relay_batches``, once it is claimed; None if it could not be: it must not be committed.
    number: Future[int | None] = field(default_factory=Future[int | None])

    @property
    def lane(self) -> int:
        """The one lane."""
        [lane] = self.lanes
        return lane


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What became of rows. Those in no list are as they were: PENDING."""

    #: Published, and so is every earlier row of their keys.
    sent: list[Message] = field(default_factory=list[Message])
    #: Failed through their own fault, or the link's; nothing behind them was published.
    faulty: list[tuple[Message, RowFault | LinkDown]] = field(
        default_factory=list[tuple[Message, RowFault | LinkDown]]
    )
    #: Set when the link failed: nothing may be published before :meth:`Delivery.connect` succeeds.
    link: LinkDown | None = None
    #: Caught in flight by the link's failure, and no later acknowledgement can publish them.
    interrupted: list[Message] = field(default_factory=list[Message])


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Fetched rows, divided into what may take off now and what is at fault."""

    batches: Sequence[Batch]
    outcome: Outcome


class Delivery(Protocol):
    """How rows reach Kafka. To be used in one event loop; blocking calls run in threads of its own."""

    #: Whether a batch may take off only after the one before has landed, whatever its lanes.
    one_batch_at_a_time: bool

    async def connect(self) -> None:
        """Reach a broker, learn anew what it accepts, and warm up.

        Raises:
            LinkDown: none answered in time.
        """
        ...

    def ready(self, lanes: Sequence[Lane]) -> list[Lane]:
        """Those of the owned *lanes* that rows may be fetched of now; the others are made ready."""
        ...

    def paused_lanes(self) -> frozenset[int]:
        """Lanes of those that are ready that should not take off yet, unless there is a backlog."""
        ...

    async def prepare(self, messages: Sequence[Message]) -> Prepared:
        """Divide *messages* by what the brokers accept."""
        ...

    def publish(self, batch: Batch) -> asyncio.Task[Outcome]:
        """Publish *batch*, in order; the task never fails and is not to be cancelled."""
        ...

    async def claim(self, connection: DedicatedConnection, batches: Sequence[Batch]) -> None:
        """Write down what is being published, where that is needed; to be called right after the launch.

        Raises:
            DatabaseError: PostgreSQL did not answer; nothing of it will be published.
        """
        ...

    def note_recorded(self, batch: Batch) -> None:
        """PostgreSQL has recorded what became of *batch*."""
        ...

    async def trim_claims(self, connection: DedicatedConnection) -> None:
        """Remove what was needed until now only; called now and then."""
        ...

    def take_link_failure(self) -> LinkDown | None:
        """The link's failure that was met outside of batches since this was last asked."""
        ...

    def stuck_lanes(self) -> Mapping[int, str]:
        """Return the owned lanes that have published nothing for a while although they tried, and why."""
        ...

    def hung(self) -> bool:
        """Whether a call to Kafka lasts longer than all limits of such a call."""
        ...

    def set_deadline(self, monotonic_s: float) -> None:
        """Wait for no acknowledgement past this time; called when the relay stops."""
        ...

    async def serve_callbacks(self) -> None:
        """Let the clients do what they have to do while nothing is published."""
        ...

    async def close(self) -> None:
        """Drop everything that is not acknowledged (it is PENDING) and the connections."""
        ...
