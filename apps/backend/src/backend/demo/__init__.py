"""``make demo`` and ``make demo-workspace``: two stories over HTTP and Kafka, printed as timelines."""

from backend.demo._run import run_demo
from backend.demo._timeline import StepMissed

__all__ = ("StepMissed", "run_demo")
