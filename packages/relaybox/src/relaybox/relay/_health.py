"""A relay's check for ``/readyz``."""

from collections.abc import Callable
from typing import Final

from relaybox.relay._statistics import Statistics
from relaybox.telemetry import Check, CheckResult, HealthState

__all__ = ("check_relay",)

_OK: Final = CheckResult(state=HealthState.OK)


def check_relay(statistics: Callable[[], Statistics]) -> Check:
    """Check that nothing keeps some of a relay's rows from being published; DEGRADED otherwise (G36).

    Degraded, and not failed: the rows of all other keys are published.

    Args:
        statistics: Returns the relay's figures.
    """

    async def check() -> CheckResult:
        troubles = statistics().troubles
        return CheckResult(state=HealthState.DEGRADED, detail="; ".join(troubles)) if troubles else _OK

    return check
