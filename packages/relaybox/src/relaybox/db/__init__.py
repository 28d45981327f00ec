"""PostgreSQL: connections, transactions, SQL files and migrations."""

from relaybox.db._database import (
    Database,
    DedicatedConnection,
    Executor,
    Isolation,
    executor_of,
    transaction_was_ended,
)
from relaybox.db._errors import (
    INSUFFICIENT_PRIVILEGE,
    READ_ONLY_MESSAGE,
    TRANSIENT_ERRORS,
    DatabaseBusy,
    DatabaseError,
    DatabaseRefused,
    DatabaseUnavailable,
    RetryTransaction,
    TransactionAborted,
    constraint_of,
    map_database_errors,
    map_service_errors,
    sqlstate_of,
)
from relaybox.db._json import contains_nul
from relaybox.db._migrations import (
    BACKBONE,
    MigrationFailed,
    Migrations,
    migrate_down,
    migrate_up,
    pending_migrations,
    run_sql_file,
    schema_script,
)
from relaybox.db._queries import Queries, load_queries
from relaybox.db._tables import TABLES, include_name

__all__ = (
    "BACKBONE",
    "INSUFFICIENT_PRIVILEGE",
    "READ_ONLY_MESSAGE",
    "TABLES",
    "TRANSIENT_ERRORS",
    "Database",
    "DatabaseBusy",
    "DatabaseError",
    "DatabaseRefused",
    "DatabaseUnavailable",
    "DedicatedConnection",
    "Executor",
    "Isolation",
    "MigrationFailed",
    "Migrations",
    "Queries",
    "RetryTransaction",
    "TransactionAborted",
    "constraint_of",
    "contains_nul",
    "executor_of",
    "include_name",
    "load_queries",
    "map_database_errors",
    "map_service_errors",
    "migrate_down",
    "migrate_up",
    "pending_migrations",
    "run_sql_file",
    "schema_script",
    "sqlstate_of",
    "transaction_was_ended",
)
