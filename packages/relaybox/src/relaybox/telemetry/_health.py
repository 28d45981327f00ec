"""Define health checks, and the report that combines their results."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

__all__ = ("Check", "CheckResult", "Checks", "HealthReport", "HealthState", "run_checks")


class HealthState(StrEnum):
    """The state of a dependency of this process, such as PostgreSQL."""

    OK = "ok"
    #: The dependency is unavailable, but the process works without it.
    DEGRADED = "degraded"
    #: The dependency is unavailable, and the process cannot work without it.
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """The result of one check."""

    state: HealthState
    #: What is wrong and what to do; None if nothing is wrong. Must not contain a secret.
    detail: str | None = None


Check: TypeAlias = Callable[[], Awaitable[CheckResult]]
"""Function that checks one dependency within a time limit; must neither raise nor block the event loop."""

Checks: TypeAlias = Mapping[str, Check]
"""Checks by their names in ``/readyz``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthReport:
    """The results of all checks."""

    results: Mapping[str, CheckResult]

    @property
    def state(self) -> HealthState:
        """The worst state of all results; OK if there are no results."""
        states = {result.state for result in self.results.values()}
        if HealthState.FAILED in states:
            return HealthState.FAILED
        return HealthState.DEGRADED if HealthState.DEGRADED in states else HealthState.OK

    @property
    def http_status(self) -> int:
        """Status of ``/readyz``: 503 if a check FAILED, so that load balancers send no requests; else 200."""
        return 503 if self.state is HealthState.FAILED else 200

    def body(self) -> dict[str, object]:
        """Return ``{"status": …, "checks": {name: {"status": …, "detail": …}}}``, the JSON of ``/readyz``.

        The first status is the worst of all; a check without a detail has no ``detail``.
        """
        checks = {name: _entry(result) for name, result in self.results.items()}
        return {"status": str(self.state), "checks": checks}


async def run_checks(checks: Checks) -> HealthReport:
    """Run all *checks* concurrently, and return their results by name in one report."""
    found = await asyncio.gather(*(check() for check in checks.values()))
    return HealthReport(results=dict(zip(checks, found, strict=True)))


def _entry(result: CheckResult) -> dict[str, str]:
    entry = {"status": str(result.state)}
    if result.detail is not None:
        entry["detail"] = result.detail
    return entry
