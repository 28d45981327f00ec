"""What a node's events make of its rows: pure, and the same for a live write and for a rebuild."""

from backend.workspace.history import _chapters, _discussions, _nodes, _sharing, _versions
from backend.workspace.history._state import AGGREGATE_TYPE, Happened, NodeState, apply

__all__ = ("AGGREGATE_TYPE", "Happened", "NodeState", "apply")

# Imported for what they declare.
_ = _chapters, _discussions, _nodes, _sharing, _versions
