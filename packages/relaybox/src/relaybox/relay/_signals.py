"""What a relay announces while it works; nothing in production listens."""

from relaybox import signals

__all__ = ("OnSignal", "Signal")


class Signal(signals.Signal):
    """A moment in a relay's life; tests wait for these instead of for time."""

    LANES_CHANGED = "lanes_changed"
    BATCH_TAKEN = "batch_taken"  # handed to the publisher
    BATCH_CLAIMED = "batch_claimed"  # written down, as far as that is needed
    BATCH_PUBLISHED = "batch_published"  # acknowledged or refused, not recorded yet
    BATCH_MARKED = "batch_marked"
    ROWS_CHARGED = "rows_charged"
    IDLE = "idle"  # nothing left to publish; waits for a notification, a retry or the poll
    LINK_DOWN = "link_down"
    LINK_UP = "link_up"
    HISTORY_CHANGED = "history_changed"  # PostgreSQL failed over or was restored; the relay starts over
    STOPPED = "stopped"


OnSignal = signals.OnSignal[Signal]
