"""The check of the order of published rows: it logs only violations."""

from uuid import UUID

import pytest
from relaybox.relay._background import Disorder, OrderWatch
from relaybox.relay._messages import Message

ATTRIBUTES = ("1", "T", None, None, None, None, None, None)


def row(seq: int, key: str | None = "a", *, lane: int = 0, epoch: int = 1) -> Message:
    return Message(seq, lane, epoch, "domain-events", key, 0, b"", ATTRIBUTES, "binary", UUID(int=seq))


def rows(*seqs: int, epoch: int = 1) -> tuple[Message, ...]:
    return tuple(row(seq, epoch=epoch) for seq in seqs)


def test_rows_in_order_are_no_violation() -> None:
    watch = OrderWatch()
    assert watch.published([row(1), row(2, "b"), row(3)]) is None
    assert watch.published([row(4, "b"), row(5)]) is None


@pytest.mark.guarantee("G21")
def test_two_rows_of_one_batch_in_the_wrong_order_are_a_violation() -> None:
    assert OrderWatch().published(rows(1, 3, 2)) == Disorder(violations=rows(2))


@pytest.mark.guarantee("G21")
def test_rows_behind_a_row_without_a_key_are_checked() -> None:
    assert OrderWatch().published([row(1, None), *rows(3, 2)]) == Disorder(violations=rows(2))


@pytest.mark.guarantee("G21")
def test_failed_row_published_after_a_later_row_of_its_key_is_a_violation() -> None:
    watch = OrderWatch()
    watch.not_published(rows(2))
    assert watch.published(rows(3)) is None
    assert watch.published(rows(2)) == Disorder(violations=rows(2))


def test_failed_row_published_in_order_is_no_violation() -> None:
    watch = OrderWatch()
    watch.published(rows(1))
    watch.not_published(rows(2, 3))
    assert watch.published(rows(2, 3)) is None
    assert watch.published(rows(4)) is None


@pytest.mark.guarantee("G22")
def test_row_seen_only_after_a_later_row_was_published_is_late() -> None:
    watch = OrderWatch()
    watch.published(rows(3))
    assert watch.published(rows(2)) == Disorder(late=rows(2))
    assert watch.published(rows(4)) is None


def test_row_repeated_in_a_new_epoch_is_no_violation() -> None:
    watch = OrderWatch()
    watch.published(rows(1, 2, 3))
    assert watch.published(rows(1, 2, 3, epoch=2)) is None
    watch.not_published(rows(4, epoch=2))
    assert watch.published(rows(5, epoch=2)) is None
    assert watch.published(rows(4, epoch=2)) == Disorder(violations=rows(4, epoch=2))


def test_row_published_twice_is_a_duplicate_and_no_violation() -> None:
    watch = OrderWatch()
    watch.published(rows(1))
    assert watch.published(rows(1)) is None


def test_row_without_a_key_has_no_order() -> None:
    watch = OrderWatch()
    watch.not_published([row(1, None)])
    assert watch.published([row(2, None)]) is None
    assert watch.published([row(1, None)]) is None


def test_order_watch_is_bounded_and_keeps_recent_keys() -> None:
    watch = OrderWatch()
    for first in range(0, 40_000, 100):
        watch.published([row(2 * seq + 2, f"key-{seq}") for seq in range(first, first + 100)])
        watch.not_published([row(10**6 + seq, "other") for seq in range(first, first + 100)])
    remembered = len(watch._recent) + len(watch._older)
    assert 5_000 <= remembered <= 10_200
    assert len(watch._unpublished) == 10_000
    for seq in (39_999, 35_000):
        watch.not_published([row(2 * seq + 1, f"key-{seq}")])
        assert watch.published([row(2 * seq + 1, f"key-{seq}")]) is not None
