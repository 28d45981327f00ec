"""What the consumers of a run do: one INSERT per event; the events of some keys fail until they are repaired.

``relaybox consumer run`` imports this module, so it imports little.
"""

import os
from typing import Final

from relaybox.consumers import EventTransaction, subscribe
from relaybox.db import executor_of
from relaybox_types.envelope import EventEnvelope

GROUP: Final = "chaos-consumers"
#: The type of the events that the group processes.
EVENT_TYPE: Final = "Genesis.Session.Described"
#: ``place`` is the number of the effect within its key, as the transaction of the effect sees it: two
#: transactions of one key at the same time write the same place.
TABLES: Final = """
    CREATE TABLE chaos_effects (
        seq BIGSERIAL PRIMARY KEY, event_id UUID NOT NULL, key TEXT NOT NULL, version INT NOT NULL,
        place INT NOT NULL, pid INT NOT NULL, at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp());
    CREATE INDEX ON chaos_effects (key, place);
    CREATE TABLE chaos_poison (key TEXT PRIMARY KEY);
"""
_EFFECT: Final = """
    INSERT INTO chaos_effects (event_id, key, version, place, pid)
    SELECT $1, $2, $3, coalesce(max(place), 0) + 1, $4 FROM chaos_effects WHERE key = $2
"""
_POISONED: Final = "SELECT key FROM chaos_poison WHERE key = $1"
_SHARED_EVENTS_MAX: Final = 5


class Poisoned(Exception):
    """Raised for an event of a key that no consumer can process at the moment."""


async def _record(event: EventEnvelope, unit: EventTransaction) -> None:
    db = executor_of(unit.db)
    await db.fetch(_EFFECT, event.event_id, event.aggregate_id, event.version, os.getpid())
    if await db.fetch(_POISONED, event.aggregate_id):
        raise Poisoned(event.aggregate_id)


#: Each event in a transaction of its own.
alone = subscribe(EVENT_TYPE, group=GROUP)(_record)
#: Events of several keys share a transaction.
together = subscribe(EVENT_TYPE, group=GROUP, transaction_events_max=_SHARED_EVENTS_MAX)(_record)
