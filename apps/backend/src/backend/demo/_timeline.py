"""What the demo prints: a line per step, and the chain of events as a tree."""

import time
from collections.abc import Iterable, Sequence
from typing import Final

from relaybox.errors import RelayboxError
from relaybox_types.envelope import EventEnvelope
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

__all__ = ("StepMissed", "Timeline", "chain_tree")

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
    """Raised when a step of the story did not happen within its time; names the step."""

    error_code = "DEMO_STEP_MISSED"


class Timeline:
    """Lines that begin with the milliseconds since the first."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._started_s = time.monotonic()

    def say(self, who: str, text: str, *details: str) -> None:
        """One step: who did it, what, and what is worth seeing of it below."""
        ms = (time.monotonic() - self._started_s) * 1_000
        line = Text.assemble((f"{ms:>7.0f} ms  ", "dim"), (f"{who:<7} ", _COLOURS.get(who, "bold")), text)
        self.console.print(line, soft_wrap=True)
        for detail in details:
            self.console.print(Text(f"{'':>20}{detail}", "dim"), soft_wrap=True)


def chain_tree(title: str, events: Sequence[EventEnvelope]) -> Tree:
    """*events* in the order of their versions, each below the event that caused it."""
    tree = Tree(Text(title, "bold"))
    known = {event.event_id for event in events}
    roots = [event for event in events if event.causation_id not in known]
    _grow(tree, roots, events)
    return tree


def _grow(tree: Tree, level: Iterable[EventEnvelope], events: Sequence[EventEnvelope]) -> None:
    for event in level:
        by = f"  by {event.actor_id}" if event.actor_id else ""
        label = Text.assemble((f"{event.version:>2} ", "dim"), event.event_type, (by, "dim"))
        _grow(tree.add(label), [one for one in events if one.causation_id == event.event_id], events)
