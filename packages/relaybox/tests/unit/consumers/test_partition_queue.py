"""The queue of a partition, and the offset that it allows to commit."""

import asyncio

from relaybox.consumers._message import Message
from relaybox.consumers._partition_queue import PartitionQueue


def message(offset: int) -> Message:
    return Message(partition=("domain-events", 0), offset=offset, header_type=None, value=b"")


class Hand:
    """Process messages, and finish one when the test allows it."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[int] = asyncio.Queue()
        self.outcomes: asyncio.Queue[bool] = asyncio.Queue()

    async def __call__(self, message: Message, queue: PartitionQueue) -> bool:
        self.taken.put_nowait(message.offset)
        return await self.outcomes.get()


async def test_position_is_the_oldest_unfinished_message() -> None:
    queue, hand = PartitionQueue(("domain-events", 0)), Hand()
    work = asyncio.create_task(queue.run(hand))
    queue.put(message(5))
    queue.put(message(8))
    queue.read_to(12)
    assert await hand.taken.get() == 5
    assert queue.position is None
    hand.outcomes.put_nowait(True)
    assert await hand.taken.get() == 8
    assert queue.position == 8
    queue.close()
    hand.outcomes.put_nowait(True)
    await work
    assert queue.position == 12


async def test_skipped_messages_move_the_position_of_an_empty_queue() -> None:
    queue = PartitionQueue(("domain-events", 0))
    queue.read_to(40)
    assert queue.position == 40
    queue.put(message(41))
    queue.read_to(50)
    assert queue.position == 40


async def test_unprocessed_message_stays_in_the_queue() -> None:
    queue, hand = PartitionQueue(("domain-events", 0)), Hand()
    work = asyncio.create_task(queue.run(hand))
    queue.put(message(5))
    await hand.taken.get()
    queue.close()
    hand.outcomes.put_nowait(False)
    await work
    assert queue.position is None
    assert len(queue) == 1


async def test_pause_ends_at_once_when_the_queue_is_closed() -> None:
    queue = PartitionQueue(("domain-events", 0))
    pause = asyncio.create_task(queue.pause(3_600))
    queue.close()
    assert await pause is False
    assert await PartitionQueue(("domain-events", 1)).pause(0) is True
