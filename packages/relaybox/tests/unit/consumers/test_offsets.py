"""The offset up to which every message of a partition is finished."""

import hypothesis.strategies as st
from hypothesis import given
from relaybox.consumers._offsets import OffsetWindow


def test_position_is_the_oldest_unfinished_message() -> None:
    window = OffsetWindow()
    for offset in (5, 8, 9):
        window.add(offset)
    window.read_to(12)
    assert window.position is None
    window.finish(8)
    assert (window.position, window.finished_above) == (None, 1)
    window.finish(5)
    assert (window.position, window.finished_above) == (9, 0)
    window.finish(9)
    assert window.position == 12


def test_skipped_messages_move_the_position_of_an_empty_window() -> None:
    window = OffsetWindow()
    window.read_to(40)
    assert window.position == 40
    window.add(41)
    window.read_to(50)
    assert window.position == 40


def test_first_unfinished_is_known_once_something_was_read() -> None:
    window = OffsetWindow()
    assert window.first_unfinished is None
    window.add(5)
    window.add(6)
    assert window.first_unfinished == 5
    window.read_to(9)
    window.finish(5)
    assert window.first_unfinished == 6
    window.finish(6)
    assert window.first_unfinished == 9


@given(st.data())
def test_position_never_passes_an_unfinished_message(data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1, max_size=30)))
    window, unfinished = OffsetWindow(), set(offsets)
    for offset in offsets:
        window.add(offset)
    window.read_to(offsets[-1] + 1)
    last = -1
    for offset in data.draw(st.permutations(offsets)):
        window.finish(offset)
        unfinished.discard(offset)
        position = -1 if window.position is None else window.position
        expected = min(unfinished, default=offsets[-1] + 1)
        assert position in (-1, expected)
        assert position >= last
        assert window.finished_above == sum(one > expected for one in set(offsets) - unfinished)
        last = position
    assert window.position == offsets[-1] + 1
