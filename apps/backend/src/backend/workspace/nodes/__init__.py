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
from backend.workspace.nodes._routes import add_node_routes, fetch_detail, node_view

__all__ = (
    "NODES_SQL",
    "add_node",
    "add_node_routes",
    "check_placement",
    "create_node",
    "fetch_detail",
    "fetch_tree",
    "next_position",
    "node_view",
    "update_node",
)
