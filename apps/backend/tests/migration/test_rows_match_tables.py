"""Every model of ``shared_types.rows`` equals its table, column by column."""

import types
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple, Union, get_args, get_origin
from uuid import UUID

import pytest
from pydantic import AwareDatetime, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_json
from relaybox.db import Database
from relaybox_types.enums import (
    CommandStatus,
    DeadLetterReason,
    DeadLetterStatus,
    HandleStatus,
    OutboxStatus,
    TaskStatus,
)
from shared_types import rows, workspace
from shared_types.genesis import GenesisStage, GenesisStatus

TABLES: dict[type[BaseModel], str] = {
    rows.DomainEvent: "domain_events",
    rows.CommandInbox: "command_inbox",
    rows.AsyncTask: "async_tasks",
    rows.EventOutbox: "event_outbox",
    rows.DeadLetter: "dead_letters",
    rows.FlowResumeHandle: "flow_resume_handles",
    rows.GenesisSession: "genesis_sessions",
    rows.IdempotencyCache: "idempotency_cache",
    workspace.WorkspaceNode: "workspace_nodes",
    workspace.WorkspaceChapter: "workspace_chapters",
    workspace.WorkspaceVersion: "workspace_versions",
    workspace.WorkspaceThread: "workspace_threads",
    workspace.WorkspaceReply: "workspace_replies",
    workspace.WorkspaceGrant: "workspace_grants",
    workspace.WorkspaceLink: "workspace_links",
}
ENUMS: dict[type[StrEnum], str] = {
    CommandStatus: "command_status",
    TaskStatus: "task_status",
    OutboxStatus: "outbox_status",
    HandleStatus: "handle_status",
    DeadLetterReason: "dead_letter_reason",
    DeadLetterStatus: "dead_letter_status",
    GenesisStatus: "genesis_status",
    GenesisStage: "genesis_stage",
    workspace.NodeKind: "workspace_kind",
    workspace.Visibility: "workspace_visibility",
    workspace.Role: "workspace_role",
    workspace.ThreadKind: "workspace_thread_kind",
}
TYPES: dict[type, str] = {
    UUID: "uuid",
    str: "text",
    int: "integer",
    bool: "boolean",
    bytes: "bytea",
    AwareDatetime: "timestamp with time zone",
    Decimal: "numeric(5,2)",
    dict: "jsonb",
    list: "jsonb",
    **ENUMS,
}
WIDE = {
    ("domain_events", "id"),
    ("event_outbox", "seq"),
    ("dead_letters", "id"),
    ("dead_letters", "message_offset"),
}
#: Defaults that the database generates; a row that was read always has a value.
GENERATED = {
    "gen_random_uuid()",
    "now()",
    "IDENTITY",
    "hashtext(COALESCE(key, (id)::text))",
    "sha256(message_key)",
}

COLUMNS = """
    SELECT attname AS name, format_type(atttypid, atttypmod) AS type, NOT attnotnull AS nullable,
        CASE WHEN attidentity <> '' THEN 'IDENTITY' ELSE pg_get_expr(adbin, adrelid) END AS default
    FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped
"""
LABELS = "SELECT enumlabel FROM pg_enum WHERE enumtypid = $1::text::regtype ORDER BY enumsortorder"

_ID = "00000000-0000-4000-8000-000000000001"
_NODE = {"node_id": _ID}
_AT = {"created_at": "2030-01-01T00:00:00Z"}
_TIMES = {**_AT, "changed_at": "2030-01-01T00:00:00Z"}

each_model = pytest.mark.parametrize("model", TABLES, ids=lambda model: model.__name__)


class Column(NamedTuple):
    type: str
    nullable: bool
    default: Any


def declared(model: type[BaseModel]) -> dict[str, Column]:
    """Return the columns of a model."""
    table = TABLES[model]
    return {name: _column(field, (table, name) in WIDE) for name, field in model.model_fields.items()}


def _column(field: FieldInfo, wide: bool) -> Column:
    annotation: Any = field.annotation
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    nullable = type(None) in parts
    [plain] = [part for part in parts if part is not type(None)]
    if plain == list[UUID]:
        return Column("uuid[]", nullable, field.default)
    plain = get_origin(plain) or plain
    sql_type = "bigint" if wide else TYPES[plain]
    return Column(sql_type, nullable, None if field.is_required() else field.default)


async def in_database(database: Database, table: str) -> dict[str, Column]:
    """Return the columns of a table; a default as its value, a generated one as None."""
    async with database.connection() as connection:
        found: dict[str, Column] = {}
        for row in await connection.fetch(COLUMNS, table):
            expression, value = row["default"], None
            if expression and expression not in GENERATED:
                [made] = await connection.fetch(f"SELECT ({expression}) AS value")
                value = made["value"]
            found[row["name"]] = Column(row["type"], row["nullable"], value)
        return found


def test_every_model_and_enum_is_compared() -> None:
    models = {getattr(rows, name) for name in rows.__all__}
    models |= {getattr(workspace, name) for name in workspace.__all__ if name.startswith("Workspace")}
    models -= {workspace.WorkspaceEvent}
    used = {TYPES[one] for one in TYPES} & set(ENUMS.values())
    assert models == set(TABLES)
    assert used == set(ENUMS.values())


@each_model
async def test_a_model_and_its_table_have_the_same_columns(
    database: Database, model: type[BaseModel]
) -> None:
    assert declared(model) == await in_database(database, TABLES[model])


@each_model
async def test_required_fields_are_columns_without_default(
    database: Database, model: type[BaseModel]
) -> None:
    for name, column in (await in_database(database, TABLES[model])).items():
        required = not column.nullable and column.default is None
        assert model.model_fields[name].is_required() == required, name


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.__name__)
async def test_an_enum_and_its_type_have_the_same_labels(database: Database, enum: type[StrEnum]) -> None:
    async with database.connection() as connection:
        labels = [row["enumlabel"] for row in await connection.fetch(LABELS, ENUMS[enum])]
    assert labels == [one.value for one in enum]


#: Values of each table's required columns.
_REQUIRED: dict[str, dict[str, Any]] = {
    "domain_events": {
        "event_id": "00000000-0000-4000-8000-000000000001",
        "event_type": "Genesis.Session.Created",
        "aggregate_type": "GENESIS_SESSION",
        "aggregate_id": "1",
        "aggregate_version": 1,
    },
    "command_inbox": {
        "session_id": "00000000-0000-4000-8000-000000000001",
        "command_type": "ConfirmStage",
    },
    "async_tasks": {"task_type": "genesis.propose"},
    "event_outbox": {"topic": "domain-events", "payload": {"a": 1}},
    "dead_letters": {
        "consumer_group": "g",
        "topic": "domain-events",
        "partition": 0,
        "message_offset": 5,
        "headers": [],
        "reason": "HANDLER_FAILED",
        "error_code": "RuntimeError",
        "error": "RuntimeError: failed",
        "attempts": 4,
        "holds_key": False,
    },
    "flow_resume_handles": {"correlation_id": "c", "resume_handle": {"a": 1}},
    "genesis_sessions": {"user_id": "writer"},
    "idempotency_cache": {"key": "k", "result": {"a": 1}, "expires_at": "2030-01-01T00:00:00Z"},
    "workspace_nodes": {"kind": "study", "owner_id": "o", "title": "t", "created_by": "o", **_TIMES},
    "workspace_chapters": {**_NODE, "position": 0, "title": "t", **_TIMES},
    "workspace_versions": {**_NODE, **_AT, "number": 1, "title": "t", "chapters": [], "created_by": "o"},
    "workspace_threads": {**_NODE, "kind": "note", "body": "b", "author_id": "a", **_TIMES},
    "workspace_replies": {**_NODE, "thread_id": _ID, "body": "b", "author_id": "a", **_TIMES},
    "workspace_grants": {**_NODE, "user_id": "u", "role": "editor", "granted_by": "o", **_TIMES},
    "workspace_links": {**_NODE, **_AT, "role": "viewer", "created_by": "o"},
}


@each_model
async def test_row_of_each_table_is_valid_for_its_model(database: Database, model: type[BaseModel]) -> None:
    table = TABLES[model]
    values = _REQUIRED[table]
    names = ", ".join(values)
    async with database.connection() as connection:
        insert = f"INSERT INTO {table} ({names}) SELECT {names}"
        [row] = await connection.fetch(
            f"{insert} FROM jsonb_populate_record(NULL::{table}, $1::text::jsonb)"
            f" RETURNING to_jsonb({table})::text AS row",
            to_json(values).decode(),
        )
    read = model.model_validate_json(row["row"])
    for name, column in declared(model).items():
        if column.default is not None:
            assert getattr(read, name) == column.default, name
