"""Rows of a partition that accepts no writes are held back, and no others (G36)."""

from base64 import b64encode
from uuid import UUID

import pytest
from pydantic_core import to_json
from relaybox.relay._errors import PartitionUnavailable
from relaybox.relay._messages import Message, withhold
from relaybox.topics import UnavailablePartitions
from relaybox.verify import partition_of

ATTRIBUTES = ("1", "T", None, None, None, None, None, None)
PARTITIONS = 4
KEYS = [f"key-{number}" for number in range(12)]
LOST = {1, 3}
REASONS = {number: f"partition {number} has no leader" for number in LOST}


def message(seq: int, key: str | None, topic: str = "events") -> Message:
    return Message(seq, 0, 1, topic, key, 0, b"{}", ATTRIBUTES, "binary", UUID(int=seq))


def letter(seq: int, order_key: str | None, key: str) -> Message:
    record = {"key": b64encode(key.encode()).decode(), "value": None, "headers": []}
    attributes = ("1", None, None, None, None, None, None, None)
    return message(seq, order_key)._replace(envelope=to_json({"record": record}), attributes=attributes)


@pytest.mark.guarantee("G36")
def test_first_row_of_each_key_is_held_and_later_ones_wait_behind() -> None:
    rows = [message(seq, KEYS[seq % len(KEYS)]) for seq in range(36)]
    free, held = withhold(rows, {"events": UnavailablePartitions(PARTITIONS, REASONS)})
    lost = [key for key in KEYS if partition_of(key, PARTITIONS) in LOST]
    assert 0 < len(lost) < len(KEYS)
    assert [row.key for row, _ in held] == lost
    assert [row for row in rows if row.key not in lost] == free
    for row, fault in held:
        assert isinstance(fault, PartitionUnavailable)
        assert str(fault) == REASONS[partition_of(row.key or "", PARTITIONS)]


@pytest.mark.guarantee("G36")
def test_rows_of_another_topic_are_not_held() -> None:
    rows = [message(seq, key, "others") for seq, key in enumerate(KEYS)]
    assert withhold(rows, {"events": UnavailablePartitions(PARTITIONS, REASONS)}) == (rows, [])


@pytest.mark.guarantee("G36")
def test_row_without_a_key_goes_to_a_partition_that_accepts_writes() -> None:
    rows = [message(seq, None) for seq in range(50)]
    free, held = withhold(rows, {"events": UnavailablePartitions(PARTITIONS, REASONS)})
    assert held == []
    assert {row.partition for row in free} == {0, 2}


def test_row_without_a_key_waits_if_no_partition_accepts_writes() -> None:
    free, held = withhold([message(1, None)], {"events": UnavailablePartitions(1, {0: "no leader"})})
    assert free == []
    assert [str(fault) for _, fault in held] == ["no leader"]


@pytest.mark.guarantee("G36")
def test_row_on_another_topic_waits_behind_a_held_row_of_its_key() -> None:
    lost = next(key for key in KEYS if partition_of(key, PARTITIONS) in LOST)
    rows = [message(1, lost), message(2, lost, "others"), message(3, None, "others")]
    free, held = withhold(rows, {"events": UnavailablePartitions(PARTITIONS, REASONS)})
    assert [row.seq for row in free] == [3]
    assert [row.seq for row, _ in held] == [1]


@pytest.mark.guarantee("G36")
def test_key_of_the_record_decides_whether_a_dead_letter_is_held() -> None:
    lost = next(key for key in KEYS if partition_of(key, PARTITIONS) in LOST)
    free_key = next(key for key in KEYS if partition_of(key, PARTITIONS) not in LOST)
    rows = [
        letter(1, "order-1", lost),
        letter(2, "order-2", free_key),
        letter(3, None, lost),
        message(4, None),
    ]
    free, held = withhold(rows, {"events": UnavailablePartitions(PARTITIONS, REASONS)})
    assert [row.seq for row in free] == [2, 4]
    assert [row.seq for row, _ in held] == [1, 3]
