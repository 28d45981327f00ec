"""Health: what a check is, and what several of them mean together."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

__all__ = ("Check", "CheckResult", "Checks", "HealthReport", "HealthState", "run_checks")


class HealthState(StrEnum):
    """How a neighbour is, from the view of this process."""

    OK = "ok"
    #: Something is missing, and the process does its work without it.
    DEGRADED = "degraded"
    #: The process cannot do its work.
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """What one check found."""

    state: HealthState
    #: What is wrong and what to do, for people; None when all is well. Never holds a secret.
    detail: str | None = None


Check: TypeAlias = Callable[[], Awaitable[CheckResult]]
"""Looks at one neighbour. Answers within its own time limit, never raises, never blocks the loop."""

Checks: TypeAlias = Mapping[str, Check]
"""Checks by the name they have in ``/readyz``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthReport:
    """What all checks found at one moment."""

    results: Mapping[str, CheckResult]

    @property
    def state(self) -> HealthState:
        """The worst of all states; OK when there is nothing to check."""
        states = {result.state for result in self.results.values()}
        if HealthState.FAILED in states:
            return HealthState.FAILED
        return HealthState.DEGRADED if HealthState.DEGRADED in states else HealthState.OK

    @property
    def http_status(self) -> int:
        """503 when a check failed, so that no traffic is sent here; 200 otherwise, degraded included."""
        return 503 if self.state is HealthState.FAILED else 200

    def body(self) -> dict[str, object]:
        """The JSON of ``/readyz``: ``{"status", "checks": {name: {"status", "detail"?}}}``."""
        checks = {name: _one(result) for name, result in self.results.items()}
        return {"status": str(self.state), "checks": checks}


async def run_checks(checks: Checks) -> HealthReport:
    """Run all *checks* at once."""
    found = await asyncio.gather(*(check() for check in checks.values()))
    return HealthReport(results=dict(zip(checks, found, strict=True)))


def _one(result: CheckResult) -> dict[str, str]:
    told = {"status": str(result.state)}
    if result.detail is not None:
        told["detail"] = result.detail
    return told
