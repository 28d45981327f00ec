"""Nodes: the tree of workspaces, folders and studies."""

from backend.workspace.nodes._lists import fetch_tree
from backend.workspace.nodes._nodes import (
    NODES_SQL,
    add_node,
    check_placement,
    create_node,
    next_position,
    update_node,
)
from backend.workspace.nodes._routes import fetch_detail, node_router, node_view, view_node

__all__ = (
    "NODES_SQL",
    "add_node",
    "check_placement",
    "create_node",
    "fetch_detail",
    "fetch_tree",
    "next_position",
    "node_router",
    "node_view",
    "update_node",
    "view_node",
)
