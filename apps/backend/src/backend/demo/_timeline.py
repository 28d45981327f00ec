"""Print the output of the demo: one line per step, and a chain of events as a tree."""

import time
from collections.abc import Iterable, Sequence
from typing import Final

from relaybox.errors import RelayboxError
from relaybox_types.envelope import EventEnvelope
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

__all__ = ("StepMissed", "Timeline", "chain_tree", "require")

_COLOURS: Final = {
    "writer": "cyan",
    "api": "green",
    "relay": "magenta",
    "agent": "yellow",
    "stream": "blue",
    "teacher": "cyan",
    "coach": "cyan",
    "pupil": "green",
    "guest": "green",
    "worker": "yellow",
}


class StepMissed(RelayboxError):
    """Raised when a response or an event of the demo is not as expected; the message names the step."""

    error_code = "DEMO_STEP_MISSED"


def require(condition: bool, problem: str) -> None:
    """Continue only if *condition* is true.

    Raises:
        StepMissed: *condition* is false; *problem* is the message.
    """
    if not condition:
        raise StepMissed(problem)


class Timeline:
    """Prints steps, each with the milliseconds since the timeline was created."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._started_s = time.monotonic()

    def show(self, actor: str, text: str, *details: str) -> None:
        """Print one step: the actor, the action, and details below."""
        ms = (time.monotonic() - self._started_s) * 1_000
        line = Text.assemble((f"{ms:>7.0f} ms  ", "dim"), (f"{actor:<7} ", _COLOURS.get(actor, "bold")), text)
        self.console.print(line, soft_wrap=True)
        for detail in details:
            self.console.print(Text(f"{'':>20}{detail}", "dim"), soft_wrap=True)


def chain_tree(title: str, events: Sequence[EventEnvelope]) -> Tree:
    """Return a tree in which each event is below the event that caused it; *events* are sorted by version."""
    tree = Tree(Text(title, "bold"))
    known = {event.event_id for event in events}
    _add_level(tree, [event for event in events if event.causation_id not in known], events)
    return tree


def _add_level(tree: Tree, level: Iterable[EventEnvelope], events: Sequence[EventEnvelope]) -> None:
    for event in level:
        by = f"  by {event.actor_id}" if event.actor_id else ""
        label = Text.assemble((f"{event.version:>2} ", "dim"), event.event_type, (by, "dim"))
        _add_level(tree.add(label), [one for one in events if one.causation_id == event.event_id], events)
