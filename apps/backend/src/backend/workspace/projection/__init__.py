"""Compute the rows of a node from its events: pure functions that commands and rebuilds use."""

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

# Their import registers the handlers of events.
_ = _chapters, _discussions, _nodes, _sharing, _versions
