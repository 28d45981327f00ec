"""What every write and every reading of a workspace stands on: the work on nodes, their rows, `If-Match`."""

from backend.workspace.core._if_match import IfMatch, etag
from backend.workspace.core._rows import NODES, TABLES, Rows, collect_changes, write_rows
from backend.workspace.core._transaction import ACCESS_SQL, CommandTransaction, ancestors_from_rows

__all__ = (
    "ACCESS_SQL",
    "NODES",
    "TABLES",
    "CommandTransaction",
    "IfMatch",
    "Rows",
    "ancestors_from_rows",
    "collect_changes",
    "etag",
    "write_rows",
)
