"""Run an example with a product and print each step: ``make demo``, ``demo-guided`` and ``demo-workspace``.

An example is called a story: its users send requests, and the demo checks the responses, the events on Kafka
and the events of the live streams. A difference raises StepMissed.
"""

from backend.demo._run import run_demo
from backend.demo._timeline import StepMissed

__all__ = ("StepMissed", "run_demo")
