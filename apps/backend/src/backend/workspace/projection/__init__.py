"""The rows of a node as a projection of its events: pure, and the same for commands and for a rebuild."""

from backend.workspace.projection import _chapters, _discussions, _nodes, _sharing, _versions
from backend.workspace.projection._moves import Direction, has_move
from backend.workspace.projection._state import AGGREGATE_TYPE, EVENT_TYPES, NodeEvent, NodeState, apply_event
from backend.workspace.projection._versions import version_chapters

__all__ = (
    "AGGREGATE_TYPE",
    "EVENT_TYPES",
    "Direction",
    "NodeEvent",
    "NodeState",
    "apply_event",
    "has_move",
    "version_chapters",
)

# Imported for the handlers that they register.
_ = _chapters, _discussions, _nodes, _sharing, _versions
