"""When the next transaction of a lane may start."""

from relaybox.relay._lanes import TransactionPause


def test_small_transaction_delays_the_next_start_by_25_ms() -> None:
    pause = TransactionPause()
    assert pause.remaining_s(10.0) == 0.0
    pause.note_start(10.0, rows=8)
    pause.note_end(10.005)
    assert round(pause.remaining_s(10.005), 3) == 0.020
    assert pause.remaining_s(10.026) == 0.0


def test_slow_small_transaction_still_delays_the_next_start() -> None:
    pause = TransactionPause()
    pause.note_start(10.0, rows=1)
    pause.note_end(10.060)
    assert round(pause.remaining_s(10.060), 3) == 0.008


def test_large_transaction_delays_the_next_start_by_8_ms() -> None:
    pause = TransactionPause()
    pause.note_start(10.0, rows=9)
    assert pause.remaining_s(10.0) == 0.0
    pause.note_end(10.010)
    assert round(pause.remaining_s(10.010), 3) == 0.008
    assert pause.remaining_s(10.019) == 0.0
