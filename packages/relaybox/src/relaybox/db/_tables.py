"""The tables of the library, for tools that look at a database it shares with an application."""

from collections.abc import Mapping
from typing import Final

__all__ = ("TABLES", "include_name")

#: Every table that the library's migrations make, its partitions and its version table included.
TABLES: Final = frozenset(
    {"aggregate_snapshots", "async_tasks", "command_inbox", "consumed_events", "domain_events"}
    | {"event_erasures", "event_outbox", "event_outbox_slots", "flow_resume_handles", "idempotency_bodies"}
    | {"idempotency_cache", "idempotency_slots", "operator_acts", "relay_batches", "relay_lanes"}
    | {"relay_members", "relay_origin", "relaybox_alembic_version", "stream_tickets"}
    | {f"event_outbox_{slot}" for slot in range(4)}
    | {f"idempotency_bodies_{slot}" for slot in range(4)}
)


def include_name(name: str | None, kind: str, _parents: Mapping[str, str | None]) -> bool:
    """Hide the library's tables from Alembic's autogenerate, as ``context.configure(include_name=…)``.

    It hides nothing else, so a table of the application that no model describes any more is still proposed
    to be dropped.
    """
    return not (kind == "table" and name in TABLES)
