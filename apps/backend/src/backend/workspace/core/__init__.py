"""What every write and every reading of a workspace stands on: the work on nodes, their rows, `If-Match`."""

from backend.workspace.core._match import IfMatch, etag
from backend.workspace.core._rows import NODES, TABLES, Rows, changes, write_rows
from backend.workspace.core._work import ACCESS, Work, read_chain

__all__ = (
    "ACCESS",
    "NODES",
    "TABLES",
    "IfMatch",
    "Rows",
    "Work",
    "changes",
    "etag",
    "read_chain",
    "write_rows",
)
