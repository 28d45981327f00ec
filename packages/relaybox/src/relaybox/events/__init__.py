"""Domain events: reading streams and chains."""

from relaybox.events._read import fetch_chain, fetch_stream, iterate_streams
from relaybox.events._record import RecordedEvent

__all__ = ("RecordedEvent", "fetch_chain", "fetch_stream", "iterate_streams")
