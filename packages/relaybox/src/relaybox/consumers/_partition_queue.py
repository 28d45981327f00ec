"""The queue of one assigned partition: its messages in order, and the offset to commit."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from relaybox.consumers._message import Message, Partition

__all__ = ("PartitionQueue",)


class PartitionQueue:
    """The messages of one partition that were read but are not finished, oldest first.

    Invariant: every message before ``position`` is finished or has no subscription, so a consumer that
    starts there misses no event. ``position`` never decreases. Only the event loop's thread writes it; the
    thread that calls Kafka reads it.
    """

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        #: The offset to commit; None until a message is finished.
        self.position: int | None = None
        #: Set when no further message may begin: the partition was revoked, or the consumer stops.
        self.closing = asyncio.Event()
        #: True while the oldest message waits for its next attempt or for the database.
        self.waiting = False
        self._messages: deque[Message] = deque()
        self._read_to = 0
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def busy(self) -> bool:
        """Whether a handler runs, so that an offset has to be committed soon."""
        return bool(self._messages) and not self.waiting

    def put(self, message: Message) -> None:
        """Append a message that was read."""
        self._messages.append(message)
        self._arrived.set()

    def read_to(self, offset: int) -> None:
        """Record that every message before *offset* was read; those not given to :meth:`put` were skipped."""
        self._read_to = offset
        if not self._messages:
            self.position = offset

    def close(self) -> None:
        """Begin no further message; the current message is finished."""
        self.closing.set()
        self._arrived.set()

    async def run(self, process: Callable[[Message, "PartitionQueue"], Awaitable[bool]]) -> None:
        """Pass the messages in order to *process* until closed; after False a message stays."""
        while not self.closing.is_set():
            if not self._messages:
                self._arrived.clear()
                await self._arrived.wait()
            elif await process(self._messages[0], self):
                self._messages.popleft()
                self.position = self._messages[0].offset if self._messages else self._read_to

    async def pause(self, pause_s: float) -> bool:
        """Wait *pause_s* seconds; return False at once if the queue is closed."""
        self.waiting = True
        try:
            await asyncio.wait_for(self.closing.wait(), pause_s)
        except TimeoutError:
            return True
        else:
            return False
        finally:
            self.waiting = False
