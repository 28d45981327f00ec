"""``make demo``: one whole story over HTTP, Kafka and the event stream, told as a timeline."""

from backend.demo._run import run_demo
from backend.demo._timeline import StepMissed

__all__ = ("StepMissed", "run_demo")
