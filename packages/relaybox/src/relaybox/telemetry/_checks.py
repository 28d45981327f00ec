"""Check PostgreSQL and its schema; bound every check in time and rate."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from relaybox.db import (
    READ_ONLY_MESSAGE,
    Database,
    DatabaseError,
    Migrations,
    load_queries,
    map_service_errors,
    pending_migrations,
)
from relaybox.telemetry._health import Check, CheckResult, HealthState

__all__ = ("CHECK_LIMIT_S", "SharedCheck", "check_postgres")

#: A probe answers within this time, whatever hangs.
CHECK_LIMIT_S: Final = 2.0
#: Probes that come faster share an answer, so that they cannot become a load of their own.
_FRESH_S: Final = 1.0
#: How long a complete schema is believed before it is compared anew.
_SCHEMA_FRESH_S: Final = 30.0
_SQL: Final = load_queries(__package__ or "relaybox.telemetry", "checks.sql")
_OK: Final = CheckResult(state=HealthState.OK)


def check_postgres(database: Database, *migrations: Migrations) -> Check:
    """Check that PostgreSQL answers and lacks none of *migrations*; FAILED otherwise.

    Answers within 2 s; results are shared for 1 s. It takes a connection of *database*'s pool, so
    a pool that is used up counts as PostgreSQL being too busy.
    """
    schema = _SchemaCheck(database, migrations)
    late = CheckResult(state=HealthState.FAILED, detail="PostgreSQL did not answer within 2 s")
    return SharedCheck(schema.run, late)


class SharedCheck:
    """Bounds a check in time, and lets callers within a second share one run of it."""

    def __init__(self, run: Callable[[], Awaitable[CheckResult]], late: CheckResult) -> None:
        self._run = run
        self._late = late
        self._last: CheckResult | None = None
        self._last_at_s = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self) -> CheckResult:
        async with self._one_at_a_time:
            if self._last is None or time.monotonic() - self._last_at_s > _FRESH_S:
                try:
                    async with asyncio.timeout(CHECK_LIMIT_S):
                        self._last = await self._run()
                except TimeoutError:
                    self._last = self._late
                self._last_at_s = time.monotonic()
            return self._last


class _SchemaCheck:
    """Asks for pending migrations, which reads files, only until none was pending; then pings."""

    def __init__(self, database: Database, migrations: tuple[Migrations, ...]) -> None:
        self._database = database
        self._migrations = migrations
        self._complete_until_s = float("-inf")

    async def run(self) -> CheckResult:
        try:
            with map_service_errors():
                if time.monotonic() < self._complete_until_s:
                    return await self._ping()
                return await self._compare()
        except DatabaseError as error:
            return CheckResult(state=HealthState.FAILED, detail=str(error))

    async def _ping(self) -> CheckResult:
        async with self._database.connection() as connection:
            [row] = await connection.fetch(_SQL["ping"])
        if row["read_only"]:
            # Reads would go on at a server that is no longer the primary.
            self._database.replace_connections()
            return CheckResult(state=HealthState.FAILED, detail=READ_ONLY_MESSAGE)
        return _OK

    async def _compare(self) -> CheckResult:
        pending = await pending_migrations(self._database, *self._migrations)
        if pending:
            missing = ", ".join(pending)
            return CheckResult(
                state=HealthState.FAILED,
                detail=f"the schema lacks {missing}; run the migrations (relaybox migrate up)",
            )
        self._complete_until_s = time.monotonic() + _SCHEMA_FRESH_S
        return await self._ping()
