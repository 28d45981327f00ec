"""What all commands on nodes share: the transaction, row locks, writing of rows, and ``If-Match``."""

from backend.workspace.core._if_match import IfMatch, etag
from backend.workspace.core._locks import (
    lock_in_place,
    lock_node,
    lock_nodes,
    lock_parent,
    lock_roots,
    lock_trees,
    share_lock_nodes,
)
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
    "lock_in_place",
    "lock_node",
    "lock_nodes",
    "lock_parent",
    "lock_roots",
    "lock_trees",
    "share_lock_nodes",
    "write_rows",
)
