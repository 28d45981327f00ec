"""Names of the library's tables, so that tools of an application in the same database can exclude them."""

from collections.abc import Mapping
from typing import Final

from alembic import context

from relaybox.settings import PostgresSettings, load_settings

__all__ = ("TABLES", "include_name")

#: All tables of the library's migrations, including partitions and Alembic's version table.
TABLES: Final = frozenset(
    {
        "aggregate_snapshots",
        "async_tasks",
        "command_inbox",
        "consumed_events",
        "consumer_partitions",
        "dead_letters",
        "domain_events",
    }
    | {"event_erasures", "event_outbox", "event_outbox_slots", "flow_resume_handles", "idempotency_bodies"}
    | {"idempotency_cache", "idempotency_slots", "operator_acts", "relay_batches", "relay_lanes"}
    | {"relay_members", "relay_origin", "relaybox_alembic_version", "stream_tickets"}
    | {"flow_event_keys", "flow_events", "flow_steps", "flow_waits", "park_requests", "work_schedules"}
    | {"watched_messages"}
    | {f"event_outbox_{slot}" for slot in range(4)}
    | {f"idempotency_bodies_{slot}" for slot in range(4)}
)


def include_name(name: str | None, kind: str, parents: Mapping[str, str | None]) -> bool:
    """Return False for the library's tables, so that Alembic's autogenerate ignores them.

    Pass this function to ``context.configure(include_name=…)``: Alembic calls it for each name that it finds
    in the database. Only the library's tables in ``POSTGRES_SCHEMA`` are ignored. So autogenerate still
    proposes to drop a table of the application if the application has no model of the table any more.

    Args:
        name: Name of the object in the database.
        kind: Kind of the object. The result is True for every kind other than ``table``.
        parents: The schema of the table as ``schema_name``; None stands for the first schema of the
            search_path.

    Raises:
        SettingsError: ``POSTGRES_…`` is malformed.
    """
    if kind != "table" or name not in TABLES:
        return True
    schema = parents.get("schema_name") or _default_schema()
    return schema != load_settings(PostgresSettings).schema_name


def _default_schema() -> str | None:
    """Return the first schema of the application's search_path, for which Alembic passes None.

    Without a connection of Alembic the result is ``public``.
    """
    try:
        return context.get_bind().dialect.default_schema_name
    except (AttributeError, NameError):  # not called from an env.py: Alembic has no context
        return "public"
