"""One assigned partition: its messages in order, and how far they are done."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from relaybox.consumers._message import Message, Partition

__all__ = ("PartitionQueue",)


class PartitionQueue:
    """Messages of one partition that were read and are not done, oldest first.

    Invariant: everything before ``position`` is done or not for us, so that whoever starts there misses
    nothing. It only rises. Only the event loop's thread writes it; the thread that talks to Kafka
    reads it.
    """

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        #: Null until something is done.
        self.position: int | None = None
        #: Set when the queue must take no further message: the partition was revoked, or the consumer stops.
        self.closing = asyncio.Event()
        #: True while the head waits: for its next attempt, or for PostgreSQL.
        self.waiting = False
        self._messages: deque[Message] = deque()
        self._read_to = 0
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def busy(self) -> bool:
        """Whether a handler is at work and its offset will want to be committed soon."""
        return bool(self._messages) and not self.waiting

    def put(self, message: Message) -> None:
        """Append a message that was read."""
        self._messages.append(message)
        self._arrived.set()

    def read_to(self, offset: int) -> None:
        """Note that everything before *offset* was read; what was not :meth:`put` is not for us."""
        self._read_to = offset
        if not self._messages:
            self.position = offset

    def close(self) -> None:
        """Take no further message; the one in hand is finished."""
        self.closing.set()
        self._arrived.set()

    async def run(self, handle: Callable[[Message, "PartitionQueue"], Awaitable[bool]]) -> None:
        """Hand one message after the other to *handle* until closed; False means: not done, keep it."""
        while not self.closing.is_set():
            if not self._messages:
                self._arrived.clear()
                await self._arrived.wait()
            elif await handle(self._messages[0], self):
                self._messages.popleft()
                self.position = self._messages[0].offset if self._messages else self._read_to

    async def pause(self, pause_s: float) -> bool:
        """Wait *pause_s* seconds; False at once when the queue is closed."""
        self.waiting = True
        try:
            await asyncio.wait_for(self.closing.wait(), pause_s)
        except TimeoutError:
            return True
        else:
            return False
        finally:
            self.waiting = False
