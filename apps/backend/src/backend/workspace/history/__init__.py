"""What a node's events make of its rows: pure, and the same for a live write and for a rebuild."""

from backend.workspace.history import _chapters, _discussions, _nodes, _sharing, _versions
from backend.workspace.history._moves import Step, has_move
from backend.workspace.history._state import AGGREGATE_TYPE, Happened, NodeState, apply
from backend.workspace.history._versions import contents

__all__ = ("AGGREGATE_TYPE", "Happened", "NodeState", "Step", "apply", "contents", "has_move")

# Imported for what they declare.
_ = _chapters, _discussions, _nodes, _sharing, _versions
