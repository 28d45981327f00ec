"""What a node's events make of its rows: pure, and the same for a live write and for a rebuild."""

from backend.workspace.projection import _chapters, _discussions, _nodes, _sharing, _versions
from backend.workspace.projection._moves import Direction, has_move
from backend.workspace.projection._state import AGGREGATE_TYPE, NodeEvent, NodeState, apply_event
from backend.workspace.projection._versions import version_chapters

__all__ = (
    "AGGREGATE_TYPE",
    "Direction",
    "NodeEvent",
    "NodeState",
    "apply_event",
    "has_move",
    "version_chapters",
)

# Imported for what they declare.
_ = _chapters, _discussions, _nodes, _sharing, _versions
