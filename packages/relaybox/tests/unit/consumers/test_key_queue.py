"""The unfinished work of a partition, by key."""

from relaybox.consumers._key_queue import KeyState, PartitionQueue, ReadyKeys, Replay
from relaybox.consumers._message import Message

PARTITION = ("domain-events", 0)


def message(offset: int, key: bytes | None = b"k", value: bytes = b"v") -> Message:
    return Message(partition=PARTITION, offset=offset, key=key, value=value)


def replay(key: bytes | None = b"k", letter_id: int | None = None) -> Replay:
    return Replay(partition=PARTITION, key=key, letter_id=letter_id)


def test_messages_of_one_key_share_a_queue_in_order() -> None:
    partition = PartitionQueue(PARTITION)
    assert partition.add(message(1)) is partition.add(message(2))
    queue = partition.add(message(3))
    assert [item.work for item in queue.items] == [message(1), message(2), message(3)]
    assert partition.add(message(4, b"other")) is not queue


def test_messages_without_a_key_have_no_common_queue() -> None:
    partition = PartitionQueue(PARTITION)
    assert partition.add(message(1, None)) is not partition.add(message(2, None))


def test_finished_key_is_forgotten() -> None:
    partition = PartitionQueue(PARTITION)
    queue = partition.add(message(1))
    queue.state = KeyState.RUNNING
    partition.finish_first(queue)
    assert queue.state is KeyState.IDLE
    assert (partition.messages, partition.bytes) == (0, 0)
    assert partition.add(message(2)) is not queue


def test_replay_precedes_waiting_messages_but_not_the_running_one() -> None:
    partition = PartitionQueue(PARTITION)
    queue = partition.add(message(1))
    partition.add(message(2))
    queue.state = KeyState.RUNNING
    assert partition.add_replay(replay()) is queue
    assert [item.work for item in queue.items] == [message(1), replay(), message(2)]
    idle = partition.add(message(3, b"other"))
    partition.add_replay(replay(b"other"))
    assert [item.work for item in idle.items] == [replay(b"other"), message(3, b"other")]


def test_replay_of_a_key_is_scheduled_once() -> None:
    partition = PartitionQueue(PARTITION)
    assert partition.add_replay(replay()) is not None
    assert partition.add_replay(replay()) is None


def test_letters_without_a_key_are_replayed_side_by_side() -> None:
    partition = PartitionQueue(PARTITION)
    first = partition.add_replay(replay(None, 7))
    assert first is not None
    assert partition.add_replay(replay(None, 8)) is not first
    assert partition.add(message(8, None)) is not first


def test_partition_is_full_by_number_bytes_or_finished_messages() -> None:
    many, large = PartitionQueue(PARTITION), PartitionQueue(PARTITION)
    for offset in range(500):
        assert not many.is_full
        many.add(message(offset, b"%d" % offset))
    assert many.is_full
    for offset in range(16):
        assert not large.is_full
        large.add(message(offset, value=bytes(1024 * 1024)))
    assert large.is_full
    above = PartitionQueue(PARTITION)
    above.add(message(0))
    for offset in range(1, 10_001):
        assert not above.is_full
        above.finish_first(above.add(message(offset, b"%d" % offset)))
    assert above.is_full
    assert not above.has_room


def test_oldest_unfinished_message_ignores_replays() -> None:
    partition = PartitionQueue(PARTITION)
    assert partition.oldest_unfinished is None
    queue = partition.add(message(1))
    partition.add(message(2, b"other"))
    partition.add(message(3))
    assert partition.oldest_unfinished == message(1)
    partition.finish_first(queue)
    assert partition.oldest_unfinished == message(2, b"other")
    partition.add_replay(replay())
    partition.finish_first(partition.add(message(4, b"third")))
    partition.finish_first(partition.add(message(2, b"other")))
    assert partition.oldest_unfinished == message(2, b"other")


def test_partition_with_many_replays_has_no_room_for_others() -> None:
    partition = PartitionQueue(PARTITION)
    queues = [partition.add_replay(replay(None, number)) for number in range(250)]
    assert not partition.has_room_for_replays
    assert queues[0] is not None
    queues[0].state = KeyState.RUNNING
    partition.finish_first(queues[0])
    assert partition.has_room_for_replays


def test_key_with_many_messages_does_not_fill_the_partition() -> None:
    partition = PartitionQueue(PARTITION)
    for offset in range(9_999):
        partition.add(message(offset))
    assert not partition.is_full
    for offset in range(10_000, 10_064):
        partition.add(message(offset, str(offset).encode()))
    assert partition.is_full


def test_key_with_many_messages_fills_the_partition_at_a_limit() -> None:
    partition = PartitionQueue(PARTITION)
    queue = partition.add(message(0))
    for offset in range(1, 10_000):
        assert not partition.is_full
        partition.add(message(offset))
    assert partition.is_full
    while not partition.has_room:
        partition.finish_first(queue)
    assert partition.messages == 5_000


def test_replay_put_before_a_waiting_message_counts_as_replay() -> None:
    partition, ready = PartitionQueue(PARTITION), ReadyKeys(concurrency=4)
    queue = partition.add(message(1))
    queue.state = KeyState.READY
    ready.add(queue)
    partition.add_replay(replay())
    assert not ready.next_keys(replaying=2)
    assert list(ready.next_keys(replaying=1)) == [queue]
