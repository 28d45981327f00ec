"""The library's tables, for tools of applications in the same database."""

from collections.abc import Mapping
from typing import Final

from alembic import context

from relaybox.settings import PostgresSettings, load_settings

__all__ = ("TABLES", "include_name")

#: All tables of the library's migrations, with partitions and the version table.
TABLES: Final = frozenset(
    {"aggregate_snapshots", "async_tasks", "command_inbox", "consumed_events", "domain_events"}
    | {"event_erasures", "event_outbox", "event_outbox_slots", "flow_resume_handles", "idempotency_bodies"}
    | {"idempotency_cache", "idempotency_slots", "operator_acts", "relay_batches", "relay_lanes"}
    | {"relay_members", "relay_origin", "relaybox_alembic_version", "stream_tickets"}
    | {f"event_outbox_{slot}" for slot in range(4)}
    | {f"idempotency_bodies_{slot}" for slot in range(4)}
)


def include_name(name: str | None, kind: str, parents: Mapping[str, str | None]) -> bool:
    """Hide the library's tables from Alembic's autogenerate, as ``context.configure(include_name=…)``.

    Only the library's tables in ``POSTGRES_SCHEMA`` are hidden: autogenerate still proposes to drop a table
    of the application that has no model any more.

    Raises:
        SettingsError: ``POSTGRES_…`` is malformed.
    """
    if kind != "table" or name not in TABLES:
        return True
    schema = parents.get("schema_name") or _default_schema()
    return schema != load_settings(PostgresSettings).schema_name


def _default_schema() -> str | None:
    """Return the schema that Alembic reports as None: the first of the application's search_path."""
    try:
        return context.get_bind().dialect.default_schema_name
    except (AttributeError, NameError):  # outside of an env.py Alembic's context has no environment
        return "public"
